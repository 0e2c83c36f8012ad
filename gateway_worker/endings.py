"""Ends of requests for which nobody is called any more."""

from __future__ import annotations

from dataclasses import replace

from gateway_worker.call import Binding, chained_error, error_entry
from gateway_worker.records import Admission, Ended, Outcome
from model_gateway.errors import GatewayError
from model_gateway.signing import ChunkChain


def ledger_lost() -> GatewayError:
    """Nothing may be admitted."""
    return GatewayError(
        "ledger_lost",
        "Redis came back without its ledger: nothing is admitted until the operator runs "
        "`model-gateway ledger rebuild` or `model-gateway ledger init`",
        retry_after=60,
    )


def cancelled_between(last: Ended, binding: Binding) -> Ended:
    """A request that was cancelled between two attempts; what the failed one may owe stays owed."""
    error = GatewayError("cancelled", "the request was cancelled")
    outcome = replace(last.outcome, state="cancelled", replies=[error_entry(error, binding)], error_code=error.code)
    return replace(last, outcome=outcome)


def not_called(admission: Admission, binding: Binding) -> Outcome:
    """The end of a request that is not called again: its attempts are used up, or it was cancelled in the queue."""
    if admission.kind == "cancelled":
        error, state = GatewayError("cancelled", "the request was cancelled"), "cancelled"
    else:
        error, state = (
            GatewayError(
                "outcome_unknown",
                f"attempt {admission.attempt} was lost with its worker; the provider may have answered",
            ),
            "failed",
        )
    if admission.chunks:
        chain = ChunkChain(
            binding.keyring,
            binding.request_id,
            binding.request_sha256,
            index=admission.chunks,
            previous=admission.signature,
        )
        reply = chained_error(error, chain, binding.dialect)
    else:
        reply = error_entry(error, binding)
    if state == "cancelled":
        return Outcome("cancelled", [reply], error_code=error.code)
    return Outcome("failed", [reply], error_code=error.code)
