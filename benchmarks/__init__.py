"""Side-by-side benchmarks of servers of many models; ``python -m benchmarks`` runs them."""
