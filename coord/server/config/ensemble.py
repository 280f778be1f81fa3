"""Keys of the ensemble: members, quorums, the links between the servers."""

from dataclasses import dataclass

from coord.server.config.keys import family, integer, key, string


@dataclass(frozen=True, slots=True)
class EnsembleConfig:
    """How the servers of an ensemble find and trust each other."""

    members: tuple[tuple[str, str], ...] = family(
        "server.", string, "one member: `host:quorumPort:electionPort[:role][;[clientHost:]clientPort]`"
    )
    election_algorithm: int = key("electionAlg", integer, 3, "only 3 exists")
    secret_file: str = key(
        "ensemble.secretFile",
        string,
        "",
        "file with the secret that the servers share (at least 16 bytes, the same on each; "
        "`zoolog coord secret FILE` writes one)",
        shown="dataDir/ensemble.secret",
    )
