# Every command of the project, the same for people and CI. Needs GNU make and a Python with its venv module.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8080
# Processes that test, or check types, at a time.
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --no-compile
# pip would compile one file after the other, and none of ours. As for pip, it is no error that some are no Python.
COMPILE = $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib src plugins handlers || true
STAMP := $(VENV)/.installed
STAMP_ALL := $(VENV)/.installed-all
# The plugins that `make install` brings, and those that only `make install-all` does.
PLUGINS := $(addprefix plugins/manymodels-,sklearn xgboost custom)
OTHERS := $(filter-out $(PLUGINS),$(patsubst %/setup.cfg,%,$(wildcard plugins/*/setup.cfg)))
HANDLERS := $(patsubst %/setup.cfg,%,$(wildcard handlers/*/setup.cfg))
metadata = $(foreach part,$(1),$(part)/setup.cfg $(part)/pyproject.toml)
# Versions of Python besides $(PYTHON) that `make test-all` runs tests on, where they are there: those
# in which what differs between versions would show.
VERSIONS ?= 3.10 3.11 3.13
PORTABLE := tests/test_invocations.py tests/test_workers.py tests/test_zygote.py tests/test_model.py \
	tests/test_plugins.py tests/test_settings.py tests/test_codecs.py tests/test_unpack.py $(PLUGINS)
# The contract, which `make test-image` runs on the image, and `make test-stores` with other stores.
CONTRACT := tests/test_container_api.py tests/test_invocations.py tests/test_boto3.py tests/test_roles.py

# What checks and tests need.
NEEDS := install-all

.PHONY: help install install-all samples serve docs lint pytest test test-all test-image test-stores test-sdk bench clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
	@echo
	@echo "  variables: PYTHON=$(PYTHON) VENV=$(VENV) PORT=$(PORT) JOBS=$(JOBS)"

install: $(STAMP) ## install the server and its plugins for sklearn, xgboost and scripts, editable, into $(VENV)

install-all: $(STAMP_ALL) ## install the plugins for all other frameworks too

$(STAMP_ALL): $(STAMP) $(call metadata,$(OTHERS))
	@echo "installing the other plugins into $(VENV) ..."
	@$(PIP) $(foreach plugin,$(OTHERS),-e ./$(plugin))
	@$(COMPILE)
	@touch $@

$(STAMP): setup.cfg pyproject.toml $(call metadata,$(PLUGINS) $(HANDLERS))
	@echo "installing into $(VENV) (a minute or two the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[test]' $(foreach plugin,$(PLUGINS),-e ./$(plugin)) $(foreach handler,$(HANDLERS),-e './$(handler)[java]')
	@$(COMPILE)
	@touch $@

samples: install ## train the sample models that are missing from model_store/
	@$(BIN)/python model_store/build.py

serve: samples ## serve the sample models on $(PORT); Ctrl-C stops it
	@exec $(BIN)/manymodels serve model_store --port $(PORT)

docs: install ## write the reference pages of docs/ from the code
	@$(BIN)/python docs/generate.py

lint: $(NEEDS) ## check format, style, types and imports
	@echo "ruff ..." && $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "mypy ..." && export MYPY_NUM_WORKERS=$(JOBS) \
		&& $(BIN)/mypy src plugins handlers/*/src model_store docs benchmarks docker \
		&& $(BIN)/mypy tests && $(BIN)/mypy handlers/*/tests
	@echo "lint-imports ..." && $(BIN)/lint-imports

pytest: $(NEEDS) ## run the tests, or those in TESTS
	@echo "pytest on $$($(BIN)/python --version) ..."
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

test: lint pytest ## all checks and tests

test-all: test ## all checks, and the tests on every other Python that is there
	@for version in $(VERSIONS); do \
		if [ "Python $$version" = "$$($(BIN)/python --version | cut -d. -f1,2)" ]; then continue; \
		elif python$$version -c "import venv" 2>/dev/null; \
		then $(MAKE) --no-print-directory pytest PYTHON=python$$version VENV=.venv-$$version NEEDS=install \
			TESTS='$(PORTABLE)' PIP="$(BIN)/uv pip install --quiet --python .venv-$$version" || exit 1; \
		else echo "Python $$version is not there: skipped"; fi; \
	done

test-image: install ## build the container images, by Docker or else by buildah, and test them
	@if docker version >/dev/null 2>&1; then build() { docker build -f docker/Dockerfile -t "$$@" .; }; \
	else build() { BUILDAH_LAYERS=true docker/image build "$$@"; }; fi; \
	build manymodels && build manymodels-training --target training
	@MANYMODELS_IMAGE=manymodels $(BIN)/python -m pytest -n $(JOBS) --dist loadfile \
		-k image tests/test_image.py $(CONTRACT)

test-stores: install-all ## test with model stores in S3, Azure and Google's cloud, by emulators; needs npm
	@$(PIP) -e '.[emulators]'
	@test -x $(VENV)/node_modules/.bin/azurite-blob || npm install --no-fund --no-audit --prefix $(VENV) azurite
	@export PATH="$(abspath $(VENV))/node_modules/.bin:$$PATH"; \
	$(BIN)/python -m pytest tests/test_store_clouds.py || exit 1; \
	for store in s3 az gs; do echo "the contract, with a store in $$store:// ..."; \
		MANYMODELS_TEST_STORE=$$store $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(CONTRACT) || exit 1; \
	done

test-sdk: install ## test with the SageMaker SDK itself, which is installed into .venv-sdk
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-sdk
	@$(BIN)/uv pip install --quiet --python .venv-sdk/bin/python 'sagemaker<3' scipy
	@MANYMODELS_SDK=$(CURDIR)/.venv-sdk/bin/python $(BIN)/python -m pytest tests/test_sdk.py

bench: install ## measure side by side with other servers, by the flags in BENCH; --help lists them
	@$(PIP) -e '.[bench]'
	@$(BIN)/python -m benchmarks $(BENCH)

clean: ## remove what was installed and cached
	rm -rf .venv .venv-* build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name '*.egg-info' -prune -exec rm -rf {} +
