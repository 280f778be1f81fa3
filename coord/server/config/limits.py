"""Keys of bounds on what clients may ask of a server."""

from dataclasses import dataclass

from coord.server.config.keys import boolean, count, fraction, integer, key, positive


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What bounds a server's work for its clients."""

    connections_max: int = key(
        "maxCnxns",
        count,
        0,
        "clients at once on this server; 0 is 10 000, as far as descriptors allow",
    )
    sessionless_ms_max: int = key(
        "nio.sessionlessCnxnTimeout",
        positive,
        10_000,
        "milliseconds after which a connection without a session is closed",
    )
    outstanding_max: int = key(
        "globalOutstandingLimit",
        count,
        0,
        "requests that wait (writes under way, and reads behind them) at which clients that have some are "
        "not read; 0: their bytes alone are bounded",
    )
    throttled_requests_max: int = key(
        "requestThrottleLimit",
        count,
        0,
        "the same, and what waited for it is judged by the keys below; 0 is off",
        aliases=("request_throttle_max_requests",),
    )
    drops_stale: bool = key(
        "requestThrottleDropStale",
        boolean,
        True,
        "whether a stale request that waited ends its connection instead of being executed",
        aliases=("request_throttle_drop_stale",),
    )
    stale_by_latency: bool = key(
        "requestStaleLatencyCheck",
        boolean,
        False,
        "a request is stale once it has waited longer than its session's timeout",
        aliases=("request_stale_latency_check",),
    )
    stale_by_connection: bool = key(
        "requestStaleConnectionCheck",
        boolean,
        True,
        "a request is stale once its connection is closed",
        aliases=("request_stale_connection_check",),
    )
    throttled_op_wait_ms: int = key(
        "throttledOpWaitTime",
        count,
        0,
        "milliseconds of waiting after which a request is refused with ThrottledOp (-127); 0 is off",
        aliases=("throttled_op_wait_time",),
    )
    large_request_bytes_min: int = key(
        "largeRequestThreshold",
        integer,
        -1,
        "bytes beyond which a request counts as large; -1: none does",
    )
    large_requests_bytes_max: int = key(
        "largeRequestMaxBytes",
        positive,
        100 << 20,
        "bytes of large requests under way; one more ends its connection",
    )
    connection_tokens: int = key(
        "connectionMaxTokens",
        count,
        0,
        "handshakes that may come at once; 0: any number, at any rate",
        aliases=("connection_throttle_tokens",),
    )
    connection_fill_ms: int = key(
        "connectionTokenFillTime",
        positive,
        1,
        "milliseconds after which there are more tokens",
        aliases=("connection_throttle_fill_time",),
    )
    connection_fill_count: int = key(
        "connectionTokenFillCount",
        positive,
        1,
        "tokens that come with each `connectionTokenFillTime`",
        aliases=("connection_throttle_fill_count",),
    )
    connection_freeze_ms: int = key(
        "connectionFreezeTime",
        integer,
        -1,
        "milliseconds between two changes of the chance that a handshake is refused; -1: it stays 0",
        aliases=("connection_throttle_freeze_time",),
    )
    connection_drop_increase: float = key(
        "connectionDropIncrease",
        fraction,
        0.02,
        "how much that chance grows while there are no tokens",
        aliases=("connection_throttle_drop_increase",),
    )
    connection_drop_decrease: float = key(
        "connectionDropDecrease",
        fraction,
        0.002,
        "how much it shrinks while enough tokens are left",
        aliases=("connection_throttle_drop_decrease",),
    )
    connection_decrease_ratio: float = key(
        "connectionDecreaseRatio",
        fraction,
        0.0,
        "the part of the tokens that may be missing for that",
        aliases=("connectionDropDecreaseRatio", "connection_throttle_decrease_ratio"),
    )
    connection_weights: bool = key(
        "connectionWeightEnabled",
        boolean,
        False,
        "whether handshakes cost tokens by their kind; tokens are then counted in global sessions",
        aliases=("connection_throttle_weight_enabled",),
    )
    global_session_weight: int = key(
        "connectionGlobalSessionWeight",
        positive,
        3,
        "tokens of a new global session",
        aliases=("connection_throttle_global_session_weight",),
    )
    local_session_weight: int = key(
        "connectionLocalSessionWeight",
        positive,
        1,
        "tokens of a new local session",
        aliases=("connection_throttle_local_session_weight",),
    )
    renew_session_weight: int = key(
        "connectionRenewSessionWeight",
        positive,
        2,
        "tokens of a session that is taken up again",
        aliases=("connection_throttle_renew_session_weight",),
    )
