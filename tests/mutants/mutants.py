"""Deliberate bugs, and the tests that must catch each: what the suite would miss, nobody is protected from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TRANSITIONS: Final = "tests/worker/test_transitions.py"
WORKER: Final = "tests/worker/test_worker_process.py"
RECONCILIATION: Final = "tests/worker/test_reconciliation.py"
GATE: Final = "tests/worker/test_deployment_gate.py"
MACHINE: Final = "tests/chaos/test_ledger_machine.py"
CRASHES: Final = "tests/chaos/test_crash_points.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug.

    Attributes:
        name: what is wrong with it.
        file: where it is put in.
        sound: the text there, which must stand exactly once: a mutant of code that has changed fails.
        broken: what takes its place.
        caught_by: the test that must fail.
    """

    name: str
    file: str
    sound: str
    broken: str
    caught_by: str


REQUIRED: Final = (
    Mutant(
        "settle does not check the fence token",
        "gateway_worker/lua/settle.lua",
        "if holder and holder ~= a.token then",
        "if false then",
        f"{TRANSITIONS}::test_a_stale_token_changes_nothing",
    ),
    Mutant(
        "emit does not check the fence token",
        "gateway_worker/lua/emit.lua",
        "if rec.state ~= 'running' or rec.token ~= a.token then",
        "if false then",
        f"{TRANSITIONS}::test_a_stale_token_changes_nothing",
    ),
    Mutant(
        "the entry is acknowledged before it is settled",
        "gateway_worker/transitions.py",
        '        """The one settle point. Returns ``settled``, ``already``, ``stale`` or ``missing``."""\n',
        "        await self._scripts._redis.xack(self._keys.requests, GROUP, subject.entry)\n",
        f"{CRASHES}::test_a_worker_killed_at_each_write_leaves_a_request_that_ends_once_and_is_charged",
    ),
    Mutant(
        "money is a float",
        "model_gateway/money.py",
        "        return int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))",
        "        return int(float(exact))",
        "tests/contract/test_costs.py",
    ),
    Mutant(
        "the SDK's retries are left on",
        "model_gateway/providers/openai/sdk.py",
        '"max_retries": 0',
        '"max_retries": 2',
        "tests/providers/test_openai_provider.py::test_a_broken_reply_may_have_been_paid_and_is_not_tried_again",
    ),
    Mutant(
        "a reclaimed request is called again under its old reservation",
        "gateway_worker/lua/admit.lua",
        "  charge_lost_attempt()\n",
        """  if held then
    local kept = { a.token, held.window, held.amount, held.scopes, attempt + 1 }
    redis.call('HSET', OPEN, a.owner, table.concat(kept, '|'))
    take(attempt + 1, held.window)
    return { 'admitted', attempt + 1, held.window, '' }
  end
""",
        f"{TRANSITIONS}::test_a_lost_attempt_is_charged_at_its_reservation_and_run_once_more",
    ),
    Mutant(
        "who disconnects has his money back",
        "gateway_worker/call.py",
        '            "cancelled",\n            [self._error(error)],\n            cost=self._cost(usage),',
        '            "cancelled",\n            [self._error(error)],\n            cost=0,',
        f"{WORKER}::test_a_cancelled_stream_stops_its_call_and_pays_what_was_generated",
    ),
    Mutant(
        "a reply goes out and nothing is settled",
        "gateway_worker/lua/settle.lua",
        "local base = cjson.decode(a.base)\n",
        """local base = cjson.decode(a.base)
for i, reply in ipairs(a.replies) do
  append_reply(reply, ARGV[i + 1])
end
if a.replies[1] then
  return { 'settled' }
end
""",
        f"{TRANSITIONS}::test_an_admitted_request_reserves_and_a_settled_one_pays_what_it_cost",
    ),
    Mutant(
        "the budget is checked outside the script",
        "gateway_worker/transitions.py",
        '        failed = Outcome("failed", [refusal], error_code="budget_exceeded")\n',
        """        from model_gateway.ledger import budget_stats
        stats = await budget_stats(self._scripts, self._keys, self._config.budget)
        if stats["spent_nano"] + stats["reserved_nano"] + amount <= stats["limit_nano"]:
            self._scopes[0]["hard"] = "0"
        failed = Outcome("failed", [refusal], error_code="budget_exceeded")
""",
        f"{TRANSITIONS}::test_requests_that_come_at_once_are_admitted_only_as_far_as_the_budget_goes",
    ),
)
"""Those without which no promise about money holds."""

FURTHER: Final = (
    Mutant(
        "a lost attempt costs nothing",
        "gateway_worker/lua/budget.lua",
        "rec.model or a.model, held.amount, 'worker_lost')",
        "rec.model or a.model, '0', 'worker_lost')",
        f"{TRANSITIONS}::test_a_lost_attempt_is_charged_at_its_reservation_and_run_once_more",
    ),
    Mutant(
        "an entry is acknowledged when it is taken",
        "gateway_worker/lua/admit.lua",
        "reserve(attempt + 1, window, base, checked)\n",
        "reserve(attempt + 1, window, base, checked)\nredis.call('XACK', REQUESTS, a.group, a.entry)\n",
        f"{WORKER}::test_a_request_whose_worker_is_killed_in_its_call_is_answered_by_another",
    ),
    Mutant(
        "a stream is called again after its client has seen chunks",
        "gateway_worker/lua/admit.lua",
        " or chunks > 0\n",
        "\n",
        f"{TRANSITIONS}::test_a_request_whose_client_has_seen_chunks_is_not_called_again",
    ),
    Mutant(
        "an answer that is lost settles twice",
        "gateway_worker/lua/settle.lua",
        "if not held and FINAL[rec.state] then",
        "if false then",
        f"{TRANSITIONS}::test_a_lost_answer_to_admit_emit_or_settle_changes_nothing_when_sent_again",
    ),
    Mutant(
        "an answer that is lost writes its chunks twice",
        "gateway_worker/lua/emit.lua",
        "if chunks == tonumber(a.first_index) then",
        "if true then",
        f"{TRANSITIONS}::test_a_lost_answer_to_admit_emit_or_settle_changes_nothing_when_sent_again",
    ),
    Mutant(
        "an id that is sent twice is run twice",
        "gateway_worker/lua/request.lua",
        "  if not rec.state or (not FINAL[rec.state] and rec.entry == a.entry) then",
        "  if not rec.state or FINAL[rec.state] or rec.entry == a.entry then",
        f"{TRANSITIONS}::test_a_repeated_id_is_answered_and_not_run_again",
    ),
    Mutant(
        "a request settles in the window in which it ends",
        "gateway_worker/lua/budget.lua",
        "    local prefix = scope .. '|' .. held.window .. '|'",
        "    local prefix = scope .. '|' .. window_of(NOW) .. '|'",
        f"{TRANSITIONS}::test_a_request_belongs_to_the_window_in_which_it_reserved",
    ),
    Mutant(
        "a reset forgets what is reserved",
        "model_gateway/lua/budget_reset.lua",
        "redis.call('HDEL', KEYS[1], prefix .. 'settled',",
        "redis.call('HDEL', KEYS[1], prefix .. 'reserved', prefix .. 'settled',",
        f"{TRANSITIONS}::test_a_reset_zeroes_what_was_settled_and_keeps_what_is_reserved",
    ),
    Mutant(
        "an unknown outcome costs nothing",
        "gateway_worker/lua/settle.lua",
        "  charge_unknown(held, base, a.model, charged, a.unknown_reason)",
        "  charge_unknown(held, base, a.model, '0', a.unknown_reason)",
        f"{TRANSITIONS}::test_a_timed_out_call_is_charged_at_its_reservation_as_unknown",
    ),
    Mutant(
        "a woken worker renews what is another's",
        "gateway_worker/lua/renew.lua",
        "held = found.err ~= nil or not found[1] or found[1] == token",
        "held = true",
        f"{TRANSITIONS}::test_a_stale_token_renews_no_lease",
    ),
    Mutant(
        "a worker that is told to stop drops what it has",
        "gateway_worker/worker.py",
        "            if left <= 0:",
        "            if True:",
        f"{WORKER}::test_a_worker_that_is_told_to_stop_finishes_what_it_has",
    ),
    Mutant(
        "a cancelled call runs on",
        "gateway_worker/attempts.py",
        "        delivery.on_cancel(task.cancel)",
        "        delivery.on_cancel(_nothing)",
        f"{WORKER}::test_a_cancelled_stream_stops_its_call_and_pays_what_was_generated",
    ),
    Mutant(
        "a charge that Redis lost stays lost",
        "gateway_worker/reconciliation.py",
        "            if run_id != self._run_id:",
        "            if run_id == self._run_id:",
        f"{RECONCILIATION}::test_charges_that_redis_lost_are_charged_again_and_the_gap_is_listed",
    ),
    Mutant(
        "what is still reserved is charged again all the same",
        "gateway_worker/lua/reconcile.lua",
        "if witness.cost == '' or still_reserved(witness) then",
        "if witness.cost == '' then",
        f"{RECONCILIATION}::test_what_is_still_reserved_is_charged_once_by_whoever_takes_it_over",
    ),
    Mutant(
        "each restart makes a lost charge once more",
        "gateway_worker/lua/reconcile.lua",
        "  if was == 'charged' or (was and witness.cost == '') then",
        "  if false then",
        f"{RECONCILIATION}::test_what_was_charged_again_is_not_charged_again_by_the_next_restart",
    ),
    Mutant(
        "nothing is submitted again",
        "model_gateway/client.py",
        '            task = asyncio.create_task(checking, name="resubmit")',
        "            checking.close()\n            continue",
        f"{RECONCILIATION}::test_a_request_that_redis_lost_before_any_worker_saw_it_is_submitted_again",
    ),
    Mutant(
        "redis-py's retries are left on",
        "model_gateway/connection.py",
        "retry=Retry(NoBackoff(), 0),",
        "retry=Retry(NoBackoff(), 3),",
        "tests/worker/test_connect.py::test_a_write_whose_answer_is_lost_is_not_sent_again_behind_our_back",
    ),
    Mutant(
        "each kind of token is rounded by itself",
        "model_gateway/money.py",
        "    return cost + left * rate",
        "    return (cost + left * rate).to_integral_value()",
        "tests/contract/test_costs.py::test_a_cost_is_rounded_once_and_not_once_a_kind_of_token",
    ),
    Mutant(
        "a reservation is given back twice",
        "gateway_worker/lua/budget.lua",
        "    redis.call('HINCRBY', LEDGER, prefix .. 'reserved', minus(held.amount))\n",
        "    redis.call('HINCRBY', LEDGER, prefix .. 'reserved', minus(held.amount))\n" * 2,
        f"{TRANSITIONS}::test_an_admitted_request_reserves_and_a_settled_one_pays_what_it_cost",
    ),
    Mutant(
        "a bill above its reservation is no overrun",
        "gateway_worker/lua/budget.lua",
        "local over = digits(math.max(0, tonumber(cost) - tonumber(held.amount)))",
        "local over = '0'",
        f"{TRANSITIONS}::test_a_bill_above_its_reservation_is_paid_and_written_as_an_overrun",
    ),
    Mutant(
        "a request ends without its terminal event",
        "gateway_worker/lua/request.lua",
        "  event(EVENTS, TERMINAL[state], base, fields,",
        "  local function nobody() end\n  nobody(base, fields,",
        f"{TRANSITIONS}::test_an_admitted_request_reserves_and_a_settled_one_pays_what_it_cost",
    ),
    Mutant(
        "what a failed attempt may owe is given back when the next one starts",
        "gateway_worker/lua/advance.lua",
        "if a.unknown == '1' then",
        "if false then",
        f"{GATE}::test_a_failed_attempt_that_may_have_been_paid_is_charged",
    ),
    Mutant(
        "a further attempt that arrives late closes the one that runs",
        "gateway_worker/lua/advance.lua",
        "elseif held.attempt ~= a.attempt then",
        "elseif false then",
        f"{TRANSITIONS}::test_an_advance_that_arrives_late_does_not_close_the_attempt_that_runs_now",
    ),
    Mutant(
        "an old request that is running is forgotten with its record",
        "gateway_worker/lua/admit.lua",
        "if a.old == '1' and not rec.state and not held then",
        "if a.old == '1' and not rec.state then",
        f"{TRANSITIONS}::test_an_old_request_that_is_running_and_whose_record_is_lost_is_taken_over",
    ),
    Mutant(
        "any call closes a circuit, also one that began before it opened",
        "gateway_worker/lua/deployment.lua",
        "    if d.probe ~= a.token then",
        "    if false then",
        f"{GATE}::test_a_call_that_began_before_the_circuit_opened_neither_closes_it_nor_prolongs_it",
    ),
    Mutant(
        "a request that was cancelled in the queue is called all the same",
        "gateway_worker/lua/admit.lua",
        "if exhausted() or rec.cancel then",
        "if exhausted() then",
        MACHINE,
    ),
    Mutant(
        "a repeated id is answered with other requests' replies as well",
        "gateway_worker/lua/request.lua",
        "      if fields[2] == a.id then",
        "      if true then",
        f"{TRANSITIONS}::test_a_repeated_id_is_answered_with_its_own_replies_alone",
    ),
)
"""More of them, for the long form."""
