"""The one table of connection fields: the form, the parser and the documentation all use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airflow_provider_quickbi.api.credentials import AUTH_TYPES
from airflow_provider_quickbi.api.settings import CHINA_REGION, NETWORKS, REGIONS

CONN_TYPE = "quickbi"
DEFAULT_CONN_ID = "quickbi_default"
HOOK_NAME = "Alibaba Cloud Quick BI"
#: The connection type of apache-airflow-providers-alibaba, whose credentials and region can be used as they are.
ALIBABA_CONN_TYPE = "alibaba_cloud"

DEFAULT_REGION = CHINA_REGION
DEFAULT_TIMEZONE = "Asia/Shanghai"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the connection's extra.

    :param name: its key in the extra.
    :param label: its label in the form.
    :param description: its help text, one or more sentences.
    :param kind: ``string``, ``number`` or ``boolean``.
    :param default: the value if the field is empty; the form shows it.
    :param choices: the valid values; empty if there is no fixed list.
    :param secret: whether it is a password field and masked in logs.
    :param minimum: the smallest valid number.
    :param maximum: the largest valid number.
    """

    name: str
    label: str
    description: str
    kind: Literal["string", "number", "boolean"] = "string"
    default: str | int | bool | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    minimum: float | None = None
    maximum: float | None = None


#: All fields of the extra, in the order of the form.
FIELDS: tuple[Field, ...] = (
    Field(
        "region",
        "Region",
        "Region of the Quick BI OpenAPI. cn-hangzhou serves all of mainland China. Ignored if a host is set.",
        default=DEFAULT_REGION,
        choices=REGIONS,
    ),
    Field(
        "network",
        "Network",
        "public, or vpc for the region's endpoint inside an Alibaba Cloud VPC.",
        default="public",
        choices=NETWORKS,
    ),
    Field(
        "auth_type",
        "Authentication type",
        "access_key uses the AccessKey ID and Secret; the other types use the fields below. default is the credential "
        "chain of the Alibaba Cloud SDK: environment, OIDC, profile, instance metadata.",
        default="access_key",
        choices=tuple(AUTH_TYPES),
    ),
    Field(
        "access_key_id",
        "AccessKey ID (extra)",
        "Used if the AccessKey ID above is empty. alibaba_cloud connections store it here.",
    ),
    Field(
        "access_key_secret",
        "AccessKey Secret (extra)",
        "Used if the AccessKey Secret above is empty. alibaba_cloud connections store it here.",
        secret=True,
    ),
    Field(
        "security_token",
        "Security token",
        "Token of temporary credentials. For sts, and for ram_role_arn with a temporary AccessKey.",
        secret=True,
    ),
    Field("role_arn", "Role ARN", "RAM role to assume. For ram_role_arn and oidc_role_arn."),
    Field("role_session_name", "Role session name", "Session name of the assumed role in the audit log."),
    Field(
        "role_session_expiration",
        "Role session duration",
        "Lifetime of the assumed role's credentials, in seconds.",
        kind="number",
        default=3600,
        minimum=900,
        maximum=43200,
    ),
    Field("policy", "Role policy", "JSON policy that further restricts the assumed role."),
    Field("external_id", "External ID", "External ID that the role requires. For ram_role_arn."),
    Field(
        "sts_endpoint",
        "STS endpoint",
        "STS host for assumed roles. Default: the public endpoint, or the region's VPC endpoint if network is vpc.",
    ),
    Field(
        "oidc_provider_arn",
        "OIDC provider ARN",
        "Identity provider. For oidc_role_arn. Default: ALIBABA_CLOUD_OIDC_PROVIDER_ARN in the environment.",
    ),
    Field(
        "oidc_token_file_path",
        "OIDC token file",
        "Path of the OIDC token file. For oidc_role_arn. Default: ALIBABA_CLOUD_OIDC_TOKEN_FILE in the environment.",
    ),
    Field(
        "role_name", "ECS RAM role", "RAM role of the ECS instance. For ecs_ram_role. Default: read from the metadata."
    ),
    Field(
        "disable_imds_v1",
        "Instance metadata v2 only",
        "Do not fall back to version 1 of the instance metadata service. For ecs_ram_role.",
        kind="boolean",
        default=False,
    ),
    Field(
        "credentials_uri",
        "Credentials URI",
        "Local URL that returns temporary credentials. For credentials_uri. "
        "Default: ALIBABA_CLOUD_CREDENTIALS_URI in the environment.",
    ),
    Field("bearer_token", "Bearer token", "Sent instead of a signature. For bearer.", secret=True),
    Field(
        "timezone",
        "Time zone of execTime",
        "IANA time zone of the run times that Quick BI returns (execTime).",
        default=DEFAULT_TIMEZONE,
    ),
    Field(
        "status_calls_per_second",
        "Status calls per second",
        "Rate limit for GetMailTaskStatus. Quick BI's documented limit is 1 call per second.",
        kind="number",
        default=1,
        minimum=0.001,
        maximum=1000,
    ),
    Field(
        "pacing_conn_id",
        "Shared rate limit (redis connection ID)",
        "ID of an Airflow redis connection through which all processes share the rate limit. "
        "Default: each process has its own limit.",
    ),
    Field(
        "connect_timeout",
        "Connect timeout",
        "Timeout for opening a network connection, in seconds.",
        kind="number",
        default=5,
        minimum=0.001,
        maximum=300,
    ),
    Field(
        "read_timeout",
        "Read timeout",
        "Timeout for reading a response, in seconds. Quick BI itself gives up after 10.",
        kind="number",
        default=10,
        minimum=0.001,
        maximum=300,
    ),
    Field(
        "verify",
        "Verify TLS certificate",
        "true, false, or the path of a CA bundle.",
        default="true",
    ),
    Field(
        "proxies",
        "Proxies",
        'Proxy URL, JSON such as {"https": "http://proxy:3128"}, or none for a direct connection. '
        "Default: the proxies of the environment.",
    ),
    Field(
        "console_url",
        "Console URL",
        "URL of the Quick BI console for the link on the task. Default: known for mainland China only.",
    ),
)

FIELD_BY_NAME = {field.name: field for field in FIELDS}
FIELD_NAMES = frozenset(FIELD_BY_NAME)
SECRET_FIELDS = tuple(field.name for field in FIELDS if field.secret)
