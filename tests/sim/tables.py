"""The tables of `docs/testing.md` on the simulator, made from the code: `python -m tests.sim --tables`."""

from collections.abc import Iterable, Mapping
from typing import Any

from tests.sim.defects import DEFECTS, Defect
from tests.sim.faults import FAULTS
from tests.sim.issues import ISSUES
from tests.sim.laws import LAWS
from tests.sim.servers.defects import SERVER_DEFECTS
from tests.sim.servers.faults import SERVER_FAULTS
from tests.sim.servers.laws import SERVER_LAWS


def defects_table() -> str:
    return _defects_table(DEFECTS)


def server_defects_table() -> str:
    return _defects_table(SERVER_DEFECTS)


def _defects_table(defects: Mapping[str, Defect[Any]]) -> str:
    rows = (
        (
            f"`{name}`",
            defect.what,
            ", ".join(f"`{_place(patch.owner)}.{patch.name}`" for patch in defect.patches),
            ", ".join(defect.laws),
            str(defect.runs),
            str(defect.runs_max),
        )
        for name, defect in sorted(defects.items())
    )
    return _table(("switch", "what is done wrong", "where", "found by", "runs needed", "allowed"), rows)


def issues_table() -> str:
    rows = (
        (
            f"ZOOKEEPER-{issue.number}",
            issue.what,
            ", ".join(f"`{name}`" for name in issue.switches),
            issue.apart,
        )
        for issue in ISSUES
    )
    return _table(("issue", "what went wrong there", "switch", "how far it differs here"), rows)


def laws_table() -> str:
    return _meanings("law", "meaning", LAWS)


def server_laws_table() -> str:
    return _meanings("law", "meaning", SERVER_LAWS)


def faults_table() -> str:
    return _meanings("fault", "what happens", FAULTS)


def server_faults_table() -> str:
    own = {kind: what for kind, what in SERVER_FAULTS.items() if kind not in FAULTS}
    return _meanings("fault", "what happens", own)


def _meanings(name: str, what: str, table: Mapping[str, str]) -> str:
    return _table((name, what), ((f"`{one}`", meaning) for one, meaning in table.items()))


def _place(owner: object) -> str:
    return str(getattr(owner, "__name__", owner)).rpartition(".")[2]


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES = {
    "defects": defects_table,
    "issues": issues_table,
    "laws": laws_table,
    "faults": faults_table,
    "servers' defects": server_defects_table,
    "servers' laws": server_laws_table,
    "servers' faults": server_faults_table,
}
