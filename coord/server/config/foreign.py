"""ZooKeeper's keys that are no keys here: the harmless ones, and those that must not be ignored.

A key in `WITHOUT_EFFECT` tunes something that does not exist here; the server starts and names it. A key in
`REFUSED` asks for something whose silent absence would hurt: an open door, a lost guarantee. It is an error
that says what to do instead, unless its value asks for nothing. A key that a record declares is neither.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from coord.server.config.keys import ConfigError


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a key cannot be honoured, and what to do instead; values that ask for nothing are harmless."""

    reason: str
    harmless: tuple[str, ...] = ("", "false", "no", "0")


_NO_KERBEROS = Refusal(
    "Kerberos (GSSAPI) is not available; use SASL DIGEST-MD5 (sasl.digest.user.NAME=PASSWORD) or client "
    "certificates"
)
_NO_PEER_UNIFICATION = Refusal(
    "plain and TLS links cannot share a port: stop all servers, set sslQuorum on each, and start them"
)
_NO_MORE_PEER_TLS = Refusal(
    "of ssl.quorum.… only keyStore.location, trustStore.location (PEM files without a password) and "
    "hostnameVerification are known"
)

REFUSED: Final[Mapping[str, Refusal]] = {
    "audit.impl.class": Refusal("classes of Java cannot be loaded; the audit log goes to the server's log"),
    "emulate353TTLNodes": Refusal(
        "TTL nodes as 3.5.3 kept them are not known; let a later ZooKeeper rewrite them without this key"
    ),
    "kerberos.canonicalizeHostNames": _NO_KERBEROS,
    "oraclePath": Refusal("an oracle for two servers is not available; run three servers"),
    "quorum.auth.kerberos.servicePrincipal": _NO_KERBEROS,
    "requireKerberosConfig": _NO_KERBEROS,
    "security.auth_to_local": _NO_KERBEROS,
    "server.principal": _NO_KERBEROS,
    "server.realm": _NO_KERBEROS,
    "ssl.tcnative.ocsp": Refusal("there is no OCSP; name revocation lists with ssl.crl"),
    "portUnification": _NO_PEER_UNIFICATION,
}

REFUSED_FAMILIES: Final[Mapping[str, Refusal]] = {"ssl.quorum.": _NO_MORE_PEER_TLS}

WITHOUT_EFFECT: Final[frozenset[str]] = frozenset(
    {
        "IPAuthenticationProvider.usexforwardedfor",
        "admin.httpVersion",
        "bitHashCacheSize",
        "clientTcpKeepAlive",
        "closeSessionTxn.enabled",
        "cnxTimeout",
        "commitLogCount",
        "commitProcessor.maxCommitBatchSize",
        "commitProcessor.maxReadBatchSize",
        "commitProcessor.numWorkerThreads",
        "commitProcessor.shutdownTimeout",
        "connectToLearnerMasterLimit",
        "controllerPort",
        "db.autocreate",
        "digest.enabled",
        "electionPortBindRetry",
        "enableEagerACLCheck",
        "fastleader.maxNotificationInterval",
        "fastleader.minNotificationInterval",
        "fips",
        "flushDelay",
        "follower.nodelay",
        "follower.skipLearnerRequestToNextProcessor",
        "forceSnapshotSync",
        "forceSync",
        "forward_learner_requests_to_commit_processor_disabled",
        "intBufferStartingSizeBytes",
        "jaasLoginRenew",
        "jmx.log4j.disable",
        "jmx.log4j.mbean",
        "jvm.pause.info-threshold.ms",
        "jvm.pause.monitor",
        "jvm.pause.sleep.time.ms",
        "jvm.pause.warn-threshold.ms",
        "kerberos.minReLoginTimeMs",
        "kinit",
        "leader.ackLoggingFrequency",
        "leader.closeSocketAsync",
        "leader.maxConcurrentDiffSyncs",
        "leader.maxConcurrentSnapSyncs",
        "leader.maxTimeToWaitForEpoch",
        "leader.nodelay",
        "leaderConnectDelayDuringRetryMs",
        "leaderServes",
        "learner.asyncSending",
        "learner.closeSocketAsync",
        "maxBatchSize",
        "maxGetChildrenResponseCacheSize",
        "maxInProcessingDeadWatchers",
        "maxResponseCacheSize",
        "maxTimeToWaitForEpoch",
        "maxWriteQueuePollTime",
        "messageTracker.BufferSize",
        "messageTracker.Enabled",
        "metricsProvider.maxQueueSize",
        "metricsProvider.numWorkerThreads",
        "metricsProvider.workerShutdownTimeoutMs",
        "multiAddress.reachabilityCheckEnabled",
        "multiAddress.reachabilityCheckTimeoutMs",
        "netty.advancedFlowControl.enabled",
        "netty.server.earlyDropSecureConnectionHandshakes",
        "nio.directBufferBytes",
        "nio.numSelectorThreads",
        "nio.numWorkerThreads",
        "nio.shutdownTimeout",
        "observer.election.DelayMs",
        "observer.electionDelayMs",
        "observer.reconnectDelayMs",
        "observer.syncEnabled",
        "observerMaster.sizeLimit",
        "observerMasterPort",
        "pathStats.delay",
        "pathStats.enabled",
        "pathStats.initialDelay",
        "pathStats.maxDepth",
        "pathStats.sampleRate",
        "pathStats.slotCapacity",
        "pathStats.slotDuration",
        "pathStats.topPathMax",
        "preAllocSize",
        "quorum.auth.enableSasl",
        "quorum.auth.learner.saslLoginContext",
        "quorum.auth.learnerRequireSasl",
        "quorum.auth.server.saslLoginContext",
        "quorum.auth.serverRequireSasl",
        "quorum.cnxn.threads.size",
        "quorumCnxnTimeoutMs",
        "request.timeout",
        "requestThrottleStallTime",
        "request_throttle_stall_time",
        "request_throttler.shutdownTimeout",
        "sasl.serverconfig",
        "serializeLastProcessedZxid.enabled",
        "serverCnxnFactory",
        "snapSizeLimitInKb",
        "snapshot.compression.method",
        "snapshot.trust.empty",
        "snapshotSizeFactor",
        "ssl.allowReverseDnsLookup",
        "ssl.sslProvider",
        "sslQuorumReloadCertFiles",
        "syncEnabled",
        "tcpKeepAlive",
        "txnLogSizeLimitInKb",
        "watchManagerName",
        "watcherCleanIntervalInSeconds",
        "watcherCleanThreadsNum",
        "watcherCleanThreshold",
    }
)
"""Threads, buffers and caches of ZooKeeper's own; and what is always so here: every write is fsynced, every
batch has a digest, servers of an ensemble always authenticate each other.
"""


def refuse(pairs: Mapping[str, str], undeclared: Collection[str]) -> None:
    """Raises ConfigError for the first of the undeclared keys that must not be ignored."""
    for name in undeclared:
        refusal = REFUSED.get(name) or next(
            (one for prefix, one in REFUSED_FAMILIES.items() if name.startswith(prefix)), None
        )
        text = pairs[name]
        if refusal is not None and text.lower() not in (word.lower() for word in refusal.harmless):
            raise ConfigError(f"{name}={text} cannot be honoured: {refusal.reason}")


def is_foreign(name: str) -> bool:
    """Whether the key is one of ZooKeeper's that means nothing here."""
    return (
        name in WITHOUT_EFFECT
        or name in REFUSED
        or any(name.startswith(prefix) for prefix in REFUSED_FAMILIES)
    )
