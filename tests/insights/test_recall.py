"""How well the local models find paraphrases: recall@5 on a labelled set."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from gateway_insights.embedding import make_embedder

GROUPS = yaml.safe_load((Path(__file__).parent / "paraphrases.yaml").read_text(encoding="utf-8"))
TOP = 5


def recall(vectors: np.ndarray, labels: np.ndarray, top: int = TOP) -> float:
    """The mean, over texts as queries, of the share of the other texts of its group among the nearest ones."""
    nearness = vectors @ vectors.T
    np.fill_diagonal(nearness, -np.inf)
    nearest = labels[np.argsort(-nearness, axis=1)[:, :top]]
    others = np.array([min((labels == label).sum() - 1, top) for label in labels])
    return float(((nearest == labels[:, None]).sum(axis=1) / others).mean())


def recall_of(setting: str) -> float:
    embedder = make_embedder(setting)
    assert embedder is not None
    texts = [text for group in GROUPS for text in group]
    labels = np.array([number for number, group in enumerate(GROUPS) for _ in group])
    return recall(embedder.embed(texts), labels)


def test_the_labelled_set_is_large_and_no_text_stands_in_it_twice():
    texts = [text for group in GROUPS for text in group]
    assert len(GROUPS) >= 60
    assert all(len(group) >= 3 and all(isinstance(text, str) for text in group) for group in GROUPS)
    assert len(set(texts)) == len(texts)


def test_recall_is_one_where_groups_lie_apart_and_low_where_they_do_not():
    labels = np.repeat(np.arange(10), 3)
    assert recall(np.eye(10, dtype=np.float32)[labels], labels, top=2) == 1.0
    assert recall(np.eye(10, dtype=np.float32)[np.tile(np.arange(10), 3)], labels, top=2) == 0.0


@pytest.mark.parametrize(("setting", "least"), [("minilm", 0.95), ("wordllama", 0.79)])
def test_paraphrases_are_among_the_five_nearest(setting, least, record_property):
    found = recall_of(setting)
    record_property(f"recall@5 {setting}", found)
    assert found >= least
