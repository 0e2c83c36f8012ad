"""Every Redis command's answer lost once, in each way there is: exactly one effect each.

First every act runs undisturbed through the proxies, which tell what commands it takes. Then it runs again for each of
them, with that one's answer lost, and must have the very same effect: the same events, the same calls, the same money.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos.acts import ACTS
from tests.chaos.lossy_stage import Stage, on_stage
from tests.chaos.scale import FULL, SEED
from tests.processes import wait_until
from tests.redis_proxy import EMPTY, Command, Fault, Moment, cut, known_scripts, tear, withhold

SLOW = {"restarted", "door_restarted"}
LANES = 4 if FULL else 1
SAMPLE = 3
"""Cases of the short form beside each script."""

WAYS = {
    "never sent": (Moment.BEFORE, cut),
    "answer lost": (Moment.EXECUTED, cut),
    "answer torn": (Moment.EXECUTED, tear),
    "answer withheld": (Moment.EXECUTED, withhold),
}


@dataclass(frozen=True, order=True)
class Case:
    """One command of one process in one act, lost in one way."""

    act: str
    process: str
    command: str
    filled: bool
    way: str

    @property
    def fault(self) -> Fault:
        moment, deed = WAYS[self.way]
        return Fault(self.command, moment, deed, filled=self.filled and moment is not Moment.BEFORE)

    @property
    def unheard(self) -> bool:
        """Whether its front door gives up a request without knowing that it was accepted: it runs, with no listener."""
        return self.command == "submit" and self.way == "answer withheld"


@dataclass(frozen=True)
class Undisturbed:
    """What an act does where nothing is lost."""

    told: str
    effect: list[tuple[Any, ...]]


NOTHING = [("calls", 0), ("letters", 0)]
ONLY_IN = {"renew": "cancelled", "XRANGE": "repeated"}
ONLY_IN |= dict.fromkeys(
    ("AUTH", "CLIENT SETINFO", "SELECT", "SCRIPT LOAD", "XGROUP CREATE", "INFO"),
    "connected_anew",
)
ONLY_IN |= dict.fromkeys(
    ("reconcile", "forget_consumers", "SET", "DEL", "SCAN", "HKEYS", "XTRIM", "MEMORY USAGE"),
    "restarted",
)
"""Acts that are sure to bring about what comes by the clock or with a new connection; elsewhere it is chance."""


async def record(stage: Stage, acts: list[str]) -> tuple[dict[str, Undisturbed], set[tuple[str, str, str, bool]]]:
    """Acts, undisturbed; and what commands they take: act, process, command, whether its answer brings anything."""
    undisturbed: dict[str, Undisturbed] = {}
    commands: dict[tuple[str, str, str], tuple[str, str, str, bool]] = {}
    for act in acts:
        starts = {process: len(proxy.answered) for process, proxy in stage.proxies.items()}
        told = await ACTS[act](stage, f"undisturbed-{act}")
        await stage.at_rest()
        undisturbed[act] = Undisturbed(told, await stage.effect(f"undisturbed-{act}"))
        for process, proxy in stage.proxies.items():
            for command, filled in _taken(proxy.answered[starts[process] :]).items():
                if ONLY_IN.get(command, act) == act:
                    # A script is lost in each act; a plain command where it was first seen.
                    place = act if command in known_scripts().values() else ""
                    commands.setdefault((place, process, command), (act, process, command, filled))
    await stage.check()
    return undisturbed, set(commands.values())


def _taken(answered: list[Command]) -> dict[str, bool]:
    """Commands by name, each with whether any answer to it brought anything."""
    return {each.name: any(one.name == each.name and one.answer not in EMPTY for one in answered) for each in answered}


async def run(stage: Stage, case: Case, number: int, undisturbed: dict[str, Undisturbed]) -> bool:
    """One case; whether its client was told of trouble."""
    text, proxy, usual = f"{number:05d}-{case.act}", stage.proxies[case.process], undisturbed[case.act]
    fault = proxy.arm(case.fault)
    told = await ACTS[case.act](stage, text)
    await wait_until(fault.over.is_set, within=20, what=str(case))
    proxy.disarm()
    if case.unheard:
        stage.upstream.release()
    await stage.at_rest()
    stage.upstream.hold()
    effect, troubled = await stage.effect(text), told == "redis_unavailable"
    assert told == usual.told or troubled, f"{case}: told {told}"
    allowed = [usual.effect] + [NOTHING] * troubled + [undisturbed["streamed"].effect] * case.unheard
    assert effect in allowed, f"{case}: {effect}, not {usual.effect}"
    await stage.check()
    return troubled


@pytest.mark.timeout(1200 if FULL else 120)
async def test_each_command_whose_answer_is_lost_has_one_effect(tmp_path, record_property):
    record_property("fault", "every Redis command's answer lost once")
    chance = random.Random(SEED)
    async with AsyncExitStack() as stack:
        folders = [tmp_path / str(number) for number in range(LANES)]
        for folder in folders:
            folder.mkdir()
        stages = [await stack.enter_async_context(on_stage(folder)) for folder in folders]
        undisturbed, commands = await record(stages[0], [act for act in ACTS if FULL or act not in SLOW])
        seen = {command.name for proxy in stages[0].proxies.values() for command in proxy.answered}
        scripts = set(known_scripts().values())
        assert scripts <= seen, f"no act takes {scripts - seen}"
        cases = chosen(sorted(Case(*command, way) for command in commands for way in WAYS), chance)
        waiting = list(enumerate(cases))

        async def lane(stage: Stage) -> int:
            troubled = 0
            while waiting:
                number, case = waiting.pop()
                try:
                    async with asyncio.timeout(90):
                        troubled += await run(stage, case, number, undisturbed)
                except Exception as error:
                    error.add_note(f"{case}, {len(waiting)} left")
                    raise
            return troubled

        troubled = sum(await asyncio.gather(*(lane(stage) for stage in stages)))
    record_property("commands", len({(case.process, case.command) for case in cases}))
    record_property("cases", len(cases))
    record_property("with other than one effect", 0)
    record_property("clients told redis_unavailable", troubled)


def chosen(cases: list[Case], chance: random.Random) -> list[Case]:
    """All of them in the long form; in the short one each script once, whoever takes entries, and a few more."""
    chance.shuffle(cases)
    if FULL:
        return cases
    quick = [case for case in cases if case.way != "answer withheld" and case.act not in SLOW]
    wanted = [*known_scripts().values(), "XREADGROUP", "HEXISTS"]
    lost = [case for case in quick if case.way == "answer lost"]
    first = [case for name in wanted for case in [each for each in lost if each.command == name][:1]]
    return list(dict.fromkeys([*first, *quick[:SAMPLE]]))
