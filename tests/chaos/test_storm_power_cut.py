"""Power cuts: Redis comes back without its last second. What was lost is told, and what is there adds up.

``CHAOS_SEED`` and ``CHAOS_REQUESTS`` change them.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from tests.chaos.accounts import Accounts, come_to_rest
from tests.chaos.load import NOT_TAKEN, Load
from tests.chaos.power import journal_of
from tests.chaos.report import report
from tests.chaos.scale import FULL, SEED, scaled
from tests.chaos.storm import site
from tests.chaos.trouble import WORKERS, Pace, Trouble
from tests.invariants import check_money, check_rest
from tests.processes import wait_until

REQUESTS = int(os.environ.get("CHAOS_REQUESTS", scaled(10_000, 120)))
# A worker that dies within a second of a cut takes with it what only it knew: that is the whole machine's case.
PACE = Pace(turn=20, worker=2, redis=5) if FULL else Pace(turn=0.5, worker=0.5, redis=1.5, turns=2)
# Under ``everysec`` the server itself may write what it has answered a second late: a cut then takes up to two.
FSYNC, LATE_SECONDS = ("everysec", 1.0) if FULL else ("always", 0.0)
WITHIN = 60.0


@pytest.mark.timeout(scaled(1800, 120))
async def test_what_redis_lost_in_a_power_cut_is_told_charged_again_and_answered(tmp_path, record_property):
    async with site(tmp_path, FSYNC) as here, journal_of(here.server) as journal:
        load = Load(REQUESTS, at_once=150, per_second=scaled(80, 50))
        chance = random.Random(SEED)
        trouble = Trouble(here.house, here.server, here.parts, chance, PACE, here.limit_nano, journal.cut_back)
        await trouble.during(load.run(here.house.url, here.agent))
        await come_to_rest(here.redis, within=WITHIN)
        accounts, invoice = await Accounts.read(here.redis), await here.provider.invoice()
        unpaid = accounts.unpaid(invoice, load.told)
        record_property("fault", "Redis without its last second")
        report(record_property, load, trouble.toll, accounts, invoice, unpaid=sum(unpaid.values()))
        assert {told.code for told in load.told} - NOT_TAKEN <= {"done", "outcome_unknown"}
        assert len(accounts.of_kind("model.ledger.restarted")) == trouble.toll.redis > 0
        assert accounts.of_kind("model.ledger.gap"), "the loss was not noticed"
        await check_money(here.redis, accounts.events)
        await check_rest(here.redis)
        accounts.check_ends()
        accounts.check_restored()
        assert unpaid == {}, "the provider charged more than was settled"


@pytest.mark.skipif(not FULL, reason="takes its time; what live workers remember is tested above")
@pytest.mark.timeout(600)
async def test_a_machine_that_loses_its_power_loses_its_last_second_and_says_so(tmp_path, record_property):
    async with site(tmp_path, FSYNC) as here, journal_of(here.server) as journal:
        load = Load(scaled(2_000, 120), at_once=150, per_second=50)
        asking = asyncio.create_task(load.run(here.house.url, here.agent))
        await wait_until(lambda: load.ended() > 0.8 * load.requests, within=300)
        for part in here.parts.values():
            part.send(signal.SIGKILL)
        here.server.stop(signal.SIGKILL)
        kept_until = await journal.cut_back()
        await here.server.start()
        for name in WORKERS:
            await here.house.start_worker(name)
        await asking
        await come_to_rest(here.redis, within=WITHIN)
        accounts, invoice = await Accounts.read(here.redis), await here.provider.invoice()
        unpaid = accounts.unpaid(invoice, load.told)
        record_property("fault", "the whole machine without its last second")
        report(record_property, load, None, accounts, invoice, unpaid=sum(unpaid.values()))
        assert len(accounts.of_kind("model.ledger.restarted")) == 1
        await check_money(here.redis, accounts.events)
        await check_rest(here.redis)
        accounts.check_ends()
        early = invoice.until(kept_until - LATE_SECONDS)
        assert early.total, "nothing was old enough to be kept"
        assert accounts.unpaid(early, load.told) == {}, "lost from before the last second"
        by_agents = [told for told in load.told if told.request_id.startswith("storm-")]
        assert len(by_agents) == load.requests // 2, "an agent waits in vain"
