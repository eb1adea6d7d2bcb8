"""The operations on models, endpoint configurations and endpoints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..endpoint import Endpoint, Routes
from ..errors import ManyModelsError, ModelNotFound
from ..settings import Settings
from ..store import Mounts, Store
from .deployments import DeploymentFailed, Deployments
from .failure import REGION, Failure, NotFound, UnknownOperation, arn
from .listing import listed
from .locations import check_environment, container_of, locate, outputs_of
from .records import Deployed, Deployment, EndpointRecord, Record, Records
from .shapes import Shapes

logger = logging.getLogger(__name__)

#: Seconds that DescribeEndpoint waits for an endpoint that is being created, updated or deleted. boto3's waiters ask
#: every 30 s, and few endpoints take that long here.
HOLD = 5.0
#: Members that change what is answered, and are not emulated.
_REFUSED = {
    "CreateModel": ("InferenceExecutionConfig",),
    "CreateEndpointConfig": ("ExplainerConfig", "ShadowProductionVariants"),
}
#: What texts call a kind of resource, where that is not its name in an ARN.
_SAID = {"endpoint-config": "endpoint configuration"}
#: Longest FailureReason.
_REASON = 1024

Content = dict[str, Any]
R = TypeVar("R", bound=Record)


class ControlPlane:
    """SageMaker's API of models, endpoint configurations and endpoints, over one server."""

    def __init__(
        self,
        shapes: Shapes,
        role: Endpoint,
        mounts: Mounts,
        routes: Routes,
        open_store: Callable[[str | Path], Store],
        root: str | Path | None,
        settings: Settings,
    ) -> None:
        """Begin with what an earlier server with the same cache folder had.

        :param role: serves `mounts` by `routes`; both are filled and emptied here.
        :param root: a store whose folders are the buckets; None: S3 itself.
        :raises SettingsError: if what is kept cannot be read.
        """
        self._shapes = shapes
        self._settings = settings
        self._open_store = open_store
        self._root = root
        self._records = Records(None if settings.cache_dir is None else settings.cache_dir / "sagemaker.json")
        self._deployments = Deployments(role, mounts, routes, open_store, root)
        #: What is being created, updated or deleted.
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._operations: dict[str, Callable[[Content], Awaitable[Content]]] = {
            "CreateModel": self._create_model,
            "DescribeModel": self._describe_model,
            "DeleteModel": self._delete_model,
            "ListModels": self._list_models,
            "CreateEndpointConfig": self._create_config,
            "DescribeEndpointConfig": self._describe_config,
            "DeleteEndpointConfig": self._delete_config,
            "ListEndpointConfigs": self._list_configs,
            "CreateEndpoint": self._create_endpoint,
            "DescribeEndpoint": self._describe_endpoint,
            "UpdateEndpoint": self._update_endpoint,
            "UpdateEndpointWeightsAndCapacities": self._update_weights,
            "DeleteEndpoint": self._delete_endpoint,
            "ListEndpoints": self._list_endpoints,
            "AddTags": self._add_tags,
            "ListTags": self._list_tags,
            "DeleteTags": self._delete_tags,
        }

    def start(self) -> None:
        """Begin to set up the endpoints that an earlier server had."""
        for name, endpoint in list(self._records.endpoints.items()):
            if endpoint.status == "Deleting":
                del self._records.endpoints[name]
            elif endpoint.status != "Failed" or endpoint.served:
                endpoint.served = endpoint.served or endpoint.status in ("InService", "Updating")
                endpoint.status = "Creating"
                self._begin(name, self._deploy(name, endpoint, endpoint.deployment))

    async def stop(self) -> None:
        """Leave what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def call(self, operation: str, content: Any, region: str | None = None) -> Content:
        """Carry out an operation.

        :param operation: its name, such as ``CreateModel``.
        :param region: the client's, for ARNs; None: it does not say.
        :raises Failure: if AWS would refuse it, or it is not emulated.
        """
        carry_out = self._operations.get(operation)
        if carry_out is None:
            known = ", ".join(sorted(self._operations))
            raise UnknownOperation(f"The operation {operation[:100]!r} is not emulated; these are: {known}.")
        REGION.set(region or "local")
        content = self._shapes.checked(operation, content)
        for member in _REFUSED.get(operation, ()):
            if member in content:
                raise Failure(f"{member} is not emulated; leave it out.")
        return await carry_out(content)

    # -- Models --

    async def _create_model(self, content: Content) -> Content:
        name = content["ModelName"]
        _check_new(self._records.models, "model", name)
        container = container_of(content)
        location = locate(container, self._root)
        check_environment(name, container.get("Environment", {}), self._settings)
        if location.artifact is not None:
            url = container.get("ModelDataUrl") or container["ModelDataSource"]["S3DataSource"]["S3Uri"]
            await asyncio.get_running_loop().run_in_executor(None, self._find, location.store, location.artifact, url)
            _check_new(self._records.models, "model", name)
        self._records.models[name] = Record(content)
        self._records.save()
        return {"ModelArn": arn("model", name)}

    def _find(self, where: str | Path, artifact: str, url: str) -> None:
        try:
            store = self._open_store(where)
            try:
                store.find(artifact)
            finally:
                store.close()
        except ModelNotFound as error:
            raise Failure(f"Could not find model data at {url}.") from error
        except ManyModelsError as error:
            raise Failure(f"Could not access model data at {url}: {error}") from error

    async def _describe_model(self, content: Content) -> Content:
        name = content["ModelName"]
        model = _known(self._records.models, "model", name)
        described = {key: value for key, value in model.request.items() if key != "Tags"}
        return {**described, "ModelArn": arn("model", name), "CreationTime": model.created}

    async def _delete_model(self, content: Content) -> Content:
        _known(self._records.models, "model", content["ModelName"])
        del self._records.models[content["ModelName"]]
        self._records.save()
        return {}

    async def _list_models(self, content: Content) -> Content:
        found = [
            {"ModelName": name, "ModelArn": arn("model", name), "CreationTime": model.created}
            for name, model in self._records.models.items()
        ]
        return listed("Models", "ModelName", found, content)

    # -- Endpoint configurations --

    async def _create_config(self, content: Content) -> Content:
        name = content["EndpointConfigName"]
        _check_new(self._records.configs, "endpoint-config", name)
        variants = content["ProductionVariants"]
        names = [variant["VariantName"] for variant in variants]
        if len(set(names)) < len(names):
            raise Failure(f"Production variants need names of their own: {', '.join(names)}.")
        for variant in variants:
            if "ModelName" not in variant:
                raise Failure(
                    f"Variant {variant['VariantName']} names no model: inference components are not emulated."
                )
            container = container_of(self._model(variant["ModelName"]))
            if "ServerlessConfig" in variant:
                if container.get("Mode") == "MultiModel":
                    raise Failure(f"Variant {variant['VariantName']}: multi-model endpoints cannot be serverless.")
            elif "InstanceType" not in variant or "InitialInstanceCount" not in variant:
                raise Failure(f"Variant {variant['VariantName']} needs InstanceType and InitialInstanceCount.")
        if not any(variant.get("InitialVariantWeight", 1.0) for variant in variants):
            raise Failure("One of the variants needs an InitialVariantWeight above 0.")
        if "AsyncInferenceConfig" in content and self._settings.async_queue is None:
            raise Failure("AsyncInferenceConfig needs a queue: start the server with --async-queue FOLDER.")
        outputs_of(content.get("AsyncInferenceConfig"))
        self._records.configs[name] = Record(content)
        self._records.save()
        return {"EndpointConfigArn": arn("endpoint-config", name)}

    async def _describe_config(self, content: Content) -> Content:
        name = content["EndpointConfigName"]
        config = self._config(name)
        described = {key: value for key, value in config.request.items() if key != "Tags"}
        described["ProductionVariants"] = [
            {"InitialVariantWeight": 1.0, **variant} for variant in described["ProductionVariants"]
        ]
        return {**described, "EndpointConfigArn": arn("endpoint-config", name), "CreationTime": config.created}

    async def _delete_config(self, content: Content) -> Content:
        self._config(content["EndpointConfigName"])
        del self._records.configs[content["EndpointConfigName"]]
        self._records.save()
        return {}

    async def _list_configs(self, content: Content) -> Content:
        found = [
            {
                "EndpointConfigName": name,
                "EndpointConfigArn": arn("endpoint-config", name),
                "CreationTime": config.created,
            }
            for name, config in self._records.configs.items()
        ]
        return listed("EndpointConfigs", "EndpointConfigName", found, content)

    # -- Endpoints --

    async def _create_endpoint(self, content: Content) -> Content:
        name = content["EndpointName"]
        # Only here AWS does not tell apart what differs in case; an ARN does not, either.
        same = {known.lower() for known in self._records.endpoints}
        _check_new(same, "endpoint", name.lower())
        endpoint = EndpointRecord(content, deployment=self._deployment(content["EndpointConfigName"]))
        self._records.endpoints[name] = endpoint
        self._records.save()
        self._begin(name, self._deploy(name, endpoint, endpoint.deployment))
        return {"EndpointArn": arn("endpoint", name)}

    async def _update_endpoint(self, content: Content) -> Content:
        name = content["EndpointName"]
        endpoint = self._updatable(name)
        deployment = self._deployment(content["EndpointConfigName"])
        excluded = [each["VariantPropertyType"] for each in content.get("ExcludeRetainedVariantProperties", [])]
        if content.get("RetainAllVariantProperties"):
            before = {one.name: one for one in endpoint.deployment.variants}
            for one in deployment.variants:
                old = before.get(one.name, one)
                if "DesiredWeight" not in excluded:
                    one.weight = old.weight
                if "DesiredInstanceCount" not in excluded and "InitialInstanceCount" in one.variant:
                    one.variant = _counted(one.variant, old.variant.get("InitialInstanceCount"))
        endpoint.change("Updating")
        self._begin(name, self._deploy(name, endpoint, deployment))
        return {"EndpointArn": arn("endpoint", name)}

    async def _update_weights(self, content: Content) -> Content:
        name = content["EndpointName"]
        endpoint = self._updatable(name)
        wanted = {each["VariantName"]: each for each in content["DesiredWeightsAndCapacities"]}
        old = endpoint.deployment
        unknown = wanted.keys() - {one.name for one in old.variants}
        if unknown:
            names = ", ".join(sorted(unknown))
            raise Failure(
                f'The variant name(s) "{names}" is/are not present within endpoint configuration "{old.config}".'
            )
        variants = [
            Deployed(
                _counted(one.variant, wanted.get(one.name, {}).get("DesiredInstanceCount")),
                one.container,
                wanted.get(one.name, {}).get("DesiredWeight", one.weight),
            )
            for one in old.variants
        ]
        if not any(one.weight for one in variants):
            raise Failure("One of the variants needs a DesiredWeight above 0.")
        endpoint.change("Updating")
        self._begin(name, self._deploy(name, endpoint, Deployment(old.config, variants, old.asynchronous)))
        return {"EndpointArn": arn("endpoint", name)}

    async def _delete_endpoint(self, content: Content) -> Content:
        name = content["EndpointName"]
        endpoint = self._settled(name)
        endpoint.change("Deleting")
        self._records.save()
        self._begin(name, self._withdraw(name))
        return {}

    async def _describe_endpoint(self, content: Content) -> Content:
        name = content["EndpointName"]
        if (task := self._tasks.get(name)) is not None:
            await asyncio.wait([task], timeout=HOLD)
        endpoint = _known(self._records.endpoints, "endpoint", name)
        described: Content = {
            "EndpointName": name,
            "EndpointArn": arn("endpoint", name),
            "EndpointConfigName": endpoint.deployment.config,
            "EndpointStatus": endpoint.status,
            "CreationTime": endpoint.created,
            "LastModifiedTime": endpoint.modified,
        }
        if endpoint.status not in ("Creating", "Failed"):
            described["ProductionVariants"] = [_summary(one, endpoint.modified) for one in endpoint.deployment.variants]
        if endpoint.deployment.asynchronous is not None:
            described["AsyncInferenceConfig"] = endpoint.deployment.asynchronous
        if endpoint.reason is not None:
            described["FailureReason"] = endpoint.reason
        return described

    async def _list_endpoints(self, content: Content) -> Content:
        wanted = content.get("StatusEquals")
        found = [
            {
                "EndpointName": name,
                "EndpointArn": arn("endpoint", name),
                "EndpointStatus": endpoint.status,
                "CreationTime": endpoint.created,
                "LastModifiedTime": endpoint.modified,
            }
            for name, endpoint in self._records.endpoints.items()
            if wanted in (None, endpoint.status)
        ]
        return listed("Endpoints", "EndpointName", found, content)

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[name] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _deploy(self, name: str, endpoint: EndpointRecord, deployment: Deployment) -> None:
        """Have an endpoint serve a configuration; one that cannot be served leaves a running endpoint as it was."""
        try:
            await self._deployments.deploy(name, deployment)
        except (DeploymentFailed, Failure) as error:
            logger.error("the endpoint %s cannot serve %s: %s", name, deployment.config, error)
            failed = endpoint.status == "Creating"
            endpoint.change("Failed" if failed else "InService", str(error)[:_REASON])
        except Exception:
            logger.exception("the endpoint %s cannot serve %s", name, deployment.config)
            endpoint.change("Failed", "internal error; the server's log has more")
        else:
            endpoint.deployment = deployment
            endpoint.change("InService")
            logger.info("the endpoint %s serves %s", name, deployment.config)
        self._records.save()

    async def _withdraw(self, name: str) -> None:
        await self._deployments.withdraw(name)
        del self._records.endpoints[name]
        self._records.save()

    # -- Tags --

    async def _add_tags(self, content: Content) -> Content:
        request = self._tagged(content["ResourceArn"])
        tags = {tag["Key"]: tag for tag in (*request.get("Tags", ()), *content["Tags"])}
        request["Tags"] = list(tags.values())
        self._records.save()
        return {"Tags": request["Tags"]}

    async def _list_tags(self, content: Content) -> Content:
        return {"Tags": self._tagged(content["ResourceArn"]).get("Tags", [])}

    async def _delete_tags(self, content: Content) -> Content:
        request = self._tagged(content["ResourceArn"])
        request["Tags"] = [tag for tag in request.get("Tags", ()) if tag["Key"] not in content["TagKeys"]]
        self._records.save()
        return {}

    def _tagged(self, wanted: str) -> Content:
        kinds: dict[str, Mapping[str, Record]] = {
            "model": self._records.models,
            "endpoint-config": self._records.configs,
            "endpoint": self._records.endpoints,
        }
        for kind, records in kinds.items():
            for name, record in records.items():
                if arn(kind, name) == wanted:
                    return record.request
        raise NotFound(f"There is no resource {wanted}.")

    # -- What is there --

    def _model(self, name: str) -> Content:
        return _known(self._records.models, "model", name).request

    def _config(self, name: str) -> Record:
        return _known(self._records.configs, "endpoint-config", name)

    def _settled(self, name: str) -> EndpointRecord:
        """Return an endpoint that is not being changed."""
        endpoint = _known(self._records.endpoints, "endpoint", name)
        if name in self._tasks:
            raise Failure(f'Cannot update in-progress endpoint "{arn("endpoint", name)}".')
        return endpoint

    def _updatable(self, name: str) -> EndpointRecord:
        endpoint = self._settled(name)
        if endpoint.status == "Failed":
            raise Failure(f'Cannot update endpoint "{arn("endpoint", name)}", which failed; delete it.')
        return endpoint

    def _deployment(self, name: str) -> Deployment:
        config = self._config(name).request
        variants = [
            Deployed(variant, container_of(self._model(variant["ModelName"])), variant.get("InitialVariantWeight", 1.0))
            for variant in config["ProductionVariants"]
        ]
        return Deployment(name, variants, config.get("AsyncInferenceConfig"))


def _check_new(records: Container[str], kind: str, name: str) -> None:
    if name in records:
        raise Failure(f'Cannot create already existing {_SAID.get(kind, kind)} "{arn(kind, name)}".')


def _known(records: Mapping[str, R], kind: str, name: str) -> R:
    if name not in records:
        raise Failure(f'Could not find {_SAID.get(kind, kind)} "{arn(kind, name)}".')
    return records[name]


def _counted(variant: Content, instances: int | None) -> Content:
    """Return a variant with so many instances; None: as many as it has."""
    return variant if instances is None else {**variant, "InitialInstanceCount": instances}


def _summary(one: Deployed, since: float) -> Content:
    image = one.container["Image"]
    count = one.variant.get("InitialInstanceCount", 0)
    summary = {
        "VariantName": one.name,
        "DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": since}],
        "CurrentWeight": one.weight,
        "DesiredWeight": one.weight,
    }
    if "ServerlessConfig" not in one.variant:
        summary |= {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
    return summary
