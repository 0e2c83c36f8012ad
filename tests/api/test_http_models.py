"""Which models there are, in the published shape and in OpenAI's."""

from __future__ import annotations

import openai
import pytest

from tests.processes import wait_until


async def test_the_published_list_is_open_and_holds_prices_tasks_and_the_budget(api):
    async with api.session.get(api.url("/models")) as response:
        assert response.status == 200
        found = await response.json()
    assert found == {
        "models": [
            {
                "name": "echo",
                "provider": "echo",
                "input_cost": 1e-06,
                "output_cost": 2e-06,
                "max_tokens": 100,
                "supports_streaming": True,
            },
            {
                "name": "org/large",
                "provider": "openai",
                "input_cost": 2.5e-06,
                "output_cost": 1e-05,
                "max_tokens": 50,
                "supports_streaming": True,
            },
            {
                "name": "unpriced",
                "provider": "openai",
                "input_cost": None,
                "output_cost": None,
                "max_tokens": 4096,
                "supports_streaming": True,
            },
        ],
        "defaults": {"vitals": "echo"},
        "budget": {"daily_limit_usd": 20.0, "hard_stop": True, "warning_threshold": 0.8},
    }


async def test_the_sdk_lists_the_models_that_a_live_worker_serves(sdk):
    assert [model.id async for model in sdk.models.list()] == ["echo", "org/large", "unpriced"]


async def test_the_sdk_finds_one_model_also_with_a_slash_in_its_name(sdk):
    for name in ("echo", "org/large"):
        model = await sdk.models.retrieve(name)
        assert model.id == name
        assert model.object == "model"


@pytest.mark.parametrize("name", ["nobody", "keyless", "vitals"])
async def test_the_sdk_does_not_find_a_model_that_is_not_served(sdk, name):
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.models.retrieve(name)
    assert caught.value.code == "model_not_found"


async def test_every_model_is_listed_while_no_worker_is_known(start, redis):
    async with start() as api:
        listed = (await api.call("GET", "/v1/models")).json["data"]
    assert [model["id"] for model in listed] == ["echo", "org/large", "unpriced", "keyless"]


async def test_a_model_appears_when_a_worker_that_serves_it_comes_up(api, worker):
    await worker.serve("echo", "keyless")

    async def names():
        return [model["id"] for model in (await api.call("GET", "/v1/models")).json["data"]]

    async def appeared():
        return await names() == ["echo", "keyless"]

    await wait_until(appeared)
