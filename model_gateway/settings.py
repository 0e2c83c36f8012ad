"""``config/models.yaml`` as typed data. Every mistake is reported at once, with its path in the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from model_gateway.config_references import references
from model_gateway.money import MAX_LIMIT_USD, nano_from_usd

DEDUPE_MARGIN_SECONDS: Final = 300
"""How much longer than ``dedupe_seconds`` a finished request's record lives, for clocks that differ."""


class ConfigError(Exception):
    """The config can't be used; ``problems`` lists every mistake as ``path: what is wrong``."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{source}: {len(problems)} problem(s)\n{lines}")


def _decimal(value: Any) -> Any:
    """Numbers come as decimals or text from YAML; a float has lost its digits already."""
    if isinstance(value, str):
        try:
            return Decimal(value)
        except InvalidOperation:
            raise ValueError("expected a number") from None
    return value


# A price above a dollar per token is a price per million tokens in the wrong place.
Amount = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@\-]{0,127}$")]
AgentName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9\-]{0,55}$")]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _bool_is_no_number(cls, value: Any, field: ValidationInfo) -> Any:
        """Python takes true for 1 and 1 for true; in a config both are mistakes."""
        wanted = cls.model_fields[str(field.field_name)].annotation is bool
        if isinstance(value, bool) is not wanted:
            raise ValueError("expected true or false" if wanted else "does not take true or false")
        return value


class LongContext(_Section):
    """Prices of a request whose input passes a threshold; they hold for all of its tokens."""

    above: Annotated[int, Field(gt=0)] = Field(description="input tokens, cached ones included")
    input_cost: Amount
    output_cost: Amount
    cached_input_cost: Amount | None = None
    cache_write_cost: Amount | None = None
    cache_write_1h_cost: Amount | None = None
    audio_input_cost: Amount | None = None
    audio_output_cost: Amount | None = None
    image_input_cost: Amount | None = None
    image_output_cost: Amount | None = None
    reasoning_cost: Amount | None = None
    cached_audio_cost: Amount | None = None


Factor = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=100, allow_inf_nan=False)]


class DeploymentRow(_Section):
    """Where a model runs: who serves it, what it costs, how much of it may run at once."""

    provider: str
    engine: str = Field("", description="the provider's name for the model; default: the row's name")
    input_cost: Amount | None = Field(None, description="USD per input token")
    output_cost: Amount | None = Field(None, description="USD per output token")
    cached_input_cost: Amount | None = Field(None, description="USD per input token read from the provider's cache")
    cache_write_cost: Amount | None = Field(None, description="USD per input token written to the cache")
    cache_write_1h_cost: Amount | None = Field(None, description="the same, kept for an hour")
    audio_input_cost: Amount | None = Field(None, description="USD per audio input token; without it audio is refused")
    audio_output_cost: Amount | None = Field(None, description="USD per audio output token; likewise")
    image_input_cost: Amount | None = Field(None, description="USD per image input token")
    image_output_cost: Amount | None = Field(None, description="USD per image output token")
    reasoning_cost: Amount | None = Field(None, description="USD per reasoning token")
    cached_audio_cost: Amount | None = Field(None, description="USD per audio input token read from the cache")
    long_context: list[LongContext] = Field(default_factory=list)
    service_tiers: dict[str, Factor] = Field(
        default_factory=dict, description="tiers that may be asked for: a factor on every price"
    )
    free: bool = Field(False, description="costs nothing, and says so on purpose")
    timeout: Seconds = Field(60.0, description="seconds for one call, from send to last byte")
    connect_timeout: Seconds = Field(10.0, description="seconds until a connection stands")
    first_token_timeout: Seconds | None = Field(None, description="seconds until a stream's first chunk")
    api_base: str = Field("", pattern=r"^(https?://.+)?$", description="the server, where it is not the vendor's own")
    api_key_env: EnvName | None = Field(None, description="the variable that holds the key")
    transport: Literal["http", "sdk"] = "http"
    max_tokens_field: Literal["", "max_tokens", "max_completion_tokens"] = Field(
        "", description="the field in which an unset output bound is sent"
    )
    drop_params: bool = Field(False, description="leave out what the provider can't do, in place of a refusal")
    reserve: Literal["bound", "estimate"] = "bound"
    image_tokens: Annotated[int, Field(gt=0, le=10_000_000)] = Field(
        50_000, description="input tokens that one image is reserved at"
    )
    file_tokens: Annotated[int, Field(gt=0, le=10_000_000)] = Field(
        500_000, description="input tokens that one file is reserved at"
    )
    audio_tokens: Annotated[int, Field(gt=0, le=10_000_000)] = Field(
        100_000, description="input tokens that one piece of audio is reserved at"
    )
    max_input_tokens: Annotated[int, Field(gt=0, le=100_000_000)] | None = Field(
        None, description="input tokens past which the provider refuses; no call is reserved at more"
    )
    max_concurrency: Annotated[int, Field(gt=0, le=65_536)] = Field(256, description="calls per process")
    queue_timeout: Seconds = Field(10.0, description="seconds to wait for a free call")
    rpm: Annotated[int, Field(gt=0)] | None = Field(None, description="calls a minute, over all workers")
    tpm: Annotated[int, Field(gt=0)] | None = Field(None, description="tokens a minute, over all workers")
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = Field(1, description="share of `routing: weighted`")
    options: dict[str, Any] = Field(default_factory=dict, description="the provider's own settings")


OnLeaving = Literal["cancel", "finish"]


class Disconnect(_Section):
    """What becomes of a request whose HTTP client leaves before the end of its reply."""

    streamed: OnLeaving = Field("cancel", description="of a streamed request")
    whole: OnLeaving = Field("finish", description="of a whole one")


class NamedDeployment(DeploymentRow):
    """One of several deployments of a model."""

    name: Name = Field(description="unique within the model")


class ModelRow(DeploymentRow):
    """One model. Its deployments take from it what they do not set; without any it is its own only one."""

    max_tokens: Annotated[int, Field(gt=0, le=10_000_000)] = Field(4096, description="output tokens at most")
    routing: Literal["order", "weighted", "latency", "cost"] = Field(
        "order", description="which deployment is asked first"
    )
    deployments: list[NamedDeployment] = Field(default_factory=list)
    fallbacks: list[str] = Field(default_factory=list, description="models to ask when this one's deployments fail")
    disconnect: Disconnect = Field(Disconnect(), description="what it does not set, it has from the gateway's")

    @model_validator(mode="before")
    @classmethod
    def _deployments_inherit(cls, data: Any) -> Any:
        """What a deployment does not set, it has from its model."""
        if not isinstance(data, dict) or not isinstance(data.get("deployments"), list):
            return data
        own = {name: value for name, value in data.items() if name in DeploymentRow.model_fields}
        rows = [{**own, **row} if isinstance(row, dict) else row for row in data["deployments"]]
        first = next((row for row in rows if isinstance(row, dict)), {})
        return {"provider": first.get("provider"), **data, "deployments": rows}

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [deployment.name for deployment in self.deployments]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"deployments: {', '.join(twice)} stands twice")
        return self

    def rows(self) -> list[tuple[str, DeploymentRow]]:
        """Its deployments by name; its own row under the name "" where it names none."""
        return [(row.name, row) for row in self.deployments] or [("", self)]


class Budget(_Section):
    """The gateway's daily budget, in UTC days."""

    daily_limit_usd: Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=MAX_LIMIT_USD)] = Decimal(20)
    hard_stop: bool = True
    warning_threshold: Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=1)] = Decimal("0.8")

    @property
    def limit_nano(self) -> int:
        """The daily limit in nano-dollars."""
        return nano_from_usd(self.daily_limit_usd)

    @property
    def warning_nano(self) -> int:
        """Settled and reserved nano-dollars past which the warning is written."""
        return nano_from_usd(self.daily_limit_usd * self.warning_threshold)


class Agent(_Section):
    """A program that publishes to the stream itself, with a secret of its own."""

    secret_env: EnvName
    isolated: bool = Field(False, description="not trusted: may write to an ingress stream of its own and nowhere else")
    max_unfinished: Annotated[int, Field(gt=0, le=1_000)] = Field(
        64, description="isolated: requests of it that wait or run at once, then queue_full"
    )
    per_minute: Annotated[int, Field(gt=0, le=1_000_000)] = Field(
        600, description="isolated: entries of any kind that are taken off its ingress in a minute"
    )

    @model_validator(mode="after")
    def _bounds_need_isolation(self) -> Self:
        """A trusted agent writes past the forwarder: a bound that nobody keeps is a mistake."""
        given = sorted({"max_unfinished", "per_minute"} & self.model_fields_set)
        if given and not self.isolated:
            raise ValueError(f"{' and '.join(given)}: hold for isolated agents only")
        return self


class Redelivery(_Section):
    """What happens after a crash."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 2
    max_deliveries: Annotated[int, Field(ge=1, le=100)] = Field(
        5, description="deliveries of an entry that never got as far as admission, then dead-letter"
    )


def deployment_name(model: str, label: str) -> str:
    """A deployment's name among all: ``<model>`` where it is the model's only one, else ``<model>#<label>``."""
    return f"{model}#{label}" if label else model


class Breaker(_Section):
    """When a deployment that fails is left alone for a while."""

    enabled: bool = True
    window_seconds: Seconds = Field(30.0, description="over which calls and failures are counted")
    min_calls: Annotated[int, Field(ge=1, le=100_000)] = Field(10, description="calls before the rate means anything")
    error_rate: Annotated[Decimal, BeforeValidator(_decimal), Field(gt=0, le=1)] = Decimal("0.5")
    timeouts: Annotated[int, Field(ge=1, le=100_000)] = Field(3, description="time-outs in a row that open it too")
    open_seconds: Seconds = Field(5.0, description="until a probe is let through; doubled each time that one fails")
    max_open_seconds: Seconds = 60.0


class Routing(_Section):
    """What happens when a call fails."""

    retries: Annotated[int, Field(ge=0, le=10)] = Field(2, description="further calls of a deployment for one request")
    backoff_seconds: Seconds = Field(0.5, description="before the first retry; doubled each time, with jitter")
    max_backoff_seconds: Seconds = Field(8.0, description="and the longest Retry-After that is waited for")
    retry_budget: Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=1)] = Field(
        Decimal("0.1"), description="retries per first call of a deployment"
    )
    breaker: Breaker = Breaker()


class Worker(_Section):
    """One worker process."""

    slots: Annotated[int, Field(gt=0, le=65_536)] = 512
    max_parked: Annotated[int, Field(ge=0, le=65_536)] = Field(
        2048, description="requests that wait for a busy deployment without holding a slot"
    )
    lease_seconds: Seconds = 30.0
    drain_seconds: Seconds | None = Field(None, description="default: the longest that a request can take + 5")


class Span(_Section):
    """How much of a stream is kept: seconds and bytes, whichever ends first; never what is still needed."""

    seconds: Annotated[int, Field(gt=0, le=10 * 366 * 86_400)]
    bytes: Annotated[int, Field(gt=0)]


class Retention(_Section):
    """How long streams are kept."""

    requests: Span = Span(seconds=24 * 3600, bytes=512 * 2**20)
    replies: Span = Span(seconds=7200, bytes=512 * 2**20)
    events: Span = Span(seconds=35 * 86_400, bytes=4 * 2**30)
    dedupe_seconds: Annotated[int, Field(ge=60, le=7 * 86_400)] = Field(
        3600, description="how long a repeated id is recognised, and how old an envelope may be"
    )

    @model_validator(mode="after")
    def _answers_outlive_ids(self) -> Self:
        if self.replies.seconds < self.dedupe_seconds + DEDUPE_MARGIN_SECONDS:
            raise ValueError(
                f"replies.seconds must be at least dedupe_seconds + {DEDUPE_MARGIN_SECONDS}: "
                "a repeated id is answered with the replies it had"
            )
        return self


class Queue(_Section):
    """The request stream's bound."""

    max_depth: Annotated[int, Field(gt=0)] = 10_000


class Overload(_Section):
    """When the front door turns requests away."""

    max_waiting: Annotated[int, Field(gt=0)] = Field(1024, description="requests that no worker has taken")


class Limits(_Section):
    """What one client may send."""

    body_bytes: Annotated[int, Field(gt=0, le=2**30)] = 20 * 2**20
    connections: Annotated[int, Field(gt=0)] = 4096
    choices: Annotated[int, Field(gt=0, le=128)] = Field(16, description="the largest n")
    read_seconds: Seconds = Field(30.0, description="time to send a request's header and body")
    keepalive_seconds: Seconds = Field(75.0, description="how long a connection may be idle")


class Metrics(_Section):
    """Who may read /metrics."""

    token: EnvName | None = Field(None, description="the variable with the bearer token; open without one")


class Insights(_Section):
    """What is kept of each request in PostgreSQL."""

    enabled: bool = True
    store_text: Literal["full", "hash", "off"] = Field("full", description="of requests and replies, secrets redacted")
    redact: list[Pattern] = Field(default_factory=list, description="further patterns that are taken out of texts")
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    embedding: Annotated[str, Field(pattern=r"^(minilm|wordllama|off|gateway:.+)$")] = Field(
        "minilm", description="what makes texts comparable"
    )
    batch: Annotated[int, Field(ge=1, le=10_000)] = Field(1000, description="events in one transaction")


class GatewayConfig(_Section):
    """The whole file."""

    models: dict[Name, ModelRow] = Field(min_length=1)
    defaults: dict[Name, str] = Field(default_factory=dict)
    budget: Budget = Budget()
    agents: dict[AgentName, Agent] = Field(default_factory=dict)
    worker: Worker = Worker()
    redelivery: Redelivery = Redelivery()
    routing: Routing = Routing()
    queue: Queue = Queue()
    overload: Overload = Overload()
    disconnect: Disconnect = Disconnect()
    retention: Retention = Retention()
    limits: Limits = Limits()
    metrics: Metrics = Metrics()
    insights: Insights = Insights()

    def resolve(self, name: str) -> str | None:
        """The model that a model's or a task's name stands for; None when there is none."""
        if name in self.models:
            return name
        return self.defaults.get(name)

    def route(self, model: str) -> list[str]:
        """The models that may answer for one: itself, then its fallbacks in order."""
        return list(dict.fromkeys([model, *self.models[model].fallbacks]))

    def cancels_on_leaving(self, model: str, *, streamed: bool) -> bool:
        """Whether a request is cancelled when its HTTP client leaves."""
        name, own = "streamed" if streamed else "whole", self.models[model].disconnect
        section = own if name in own.model_fields_set else self.disconnect
        return bool(getattr(section, name) == "cancel")

    def longest_request(self, model: str) -> float:
        """Seconds after which no further attempt of one request begins."""
        return sum(self._slowest_calls(model)) + self.routing.retries * self.routing.max_backoff_seconds

    def longest_delivery(self, model: str) -> float:
        """Seconds that one request may take in one worker's hands, with the attempt that began last."""
        return self.longest_request(model) + max(self._slowest_calls(model))

    def _slowest_calls(self, model: str) -> list[float]:
        """For each model that may answer, the seconds of its slowest deployment's call and the wait for it."""
        rows = [self.models[name].rows() for name in self.route(model)]
        return [max(row.timeout + row.queue_timeout for _, row in found) for found in rows]

    @property
    def drain_seconds(self) -> float:
        """How long a stopping process lets its requests finish."""
        return self.worker.drain_seconds or max(map(self.longest_delivery, self.models)) + 5


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a number keeps its digits and a key may stand once."""


def _construct_decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    try:
        return Decimal(node.value.replace("_", ""))
    except InvalidOperation:  # .inf, .nan and sexagesimals
        return loader.construct_yaml_float(node)


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node)
        if key in seen:
            line = key_node.start_mark.line + 1
            raise yaml.constructor.ConstructorError(problem=f"line {line}: {key!r} stands twice")
        seen.add(key)
    loader.flatten_mapping(node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_decimal)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse_config(text: str, source: str = "config") -> GatewayConfig:
    """The config out of YAML text.

    Raises:
        ConfigError: with every mistake, not only the first.
    """
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(source, [f"not YAML: {error}"]) from None
    if not isinstance(data, dict):
        raise ConfigError(source, ["expected a mapping with 'models' at the top"])
    try:
        config = GatewayConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(source, [_problem(item) for item in error.errors()] + references(data)) from None
    problems = references(data)
    if problems:
        raise ConfigError(source, problems)
    return config


def load_config(path: str | Path) -> GatewayConfig:
    """The config out of a file.

    Raises:
        ConfigError: the file is missing or wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"can't be read: {error}"]) from None
    return parse_config(text, str(path))


def _problem(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown setting" + _nearest(error["loc"])
    elif error["type"] == "missing":
        message = "is missing"
    return f"{path}: {message}"


_SECTIONS: dict[str, type[BaseModel]] = {"models": ModelRow, "agents": Agent}


def _nearest(location: tuple[Any, ...]) -> str:
    """``; did you mean ...`` for a misspelt setting."""
    section = _SECTIONS.get(str(location[0])) if len(location) > 1 else GatewayConfig
    if section is None:
        annotation = GatewayConfig.model_fields[str(location[0])].annotation
        section = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    names = list(section.model_fields) if section else []
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
