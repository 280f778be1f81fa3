"""The tables of `docs/testing.md` on the simulator, made from the code: `python -m tests.sim --tables`."""

from collections.abc import Iterable

from tests.sim.defects import DEFECTS
from tests.sim.faults import FAULTS
from tests.sim.issues import ISSUES
from tests.sim.laws import LAWS


def defects_table() -> str:
    rows = (
        (
            f"`{name}`",
            defect.what,
            ", ".join(f"`{_place(patch.owner)}.{patch.name}`" for patch in defect.patches),
            ", ".join(defect.laws),
            str(defect.runs),
            str(defect.runs_max),
        )
        for name, defect in sorted(DEFECTS.items())
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
    return _table(("law", "meaning"), ((f"`{name}`", meaning) for name, meaning in LAWS.items()))


def faults_table() -> str:
    return _table(("fault", "what happens"), ((f"`{kind}`", what) for kind, what in FAULTS.items()))


def _place(owner: object) -> str:
    return str(getattr(owner, "__name__", owner)).rpartition(".")[2]


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES = {"defects": defects_table, "issues": issues_table, "laws": laws_table, "faults": faults_table}
