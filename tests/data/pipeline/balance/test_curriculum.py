"""The curriculum: what is admitted when, what is replayed, and that both are functions of seed, epoch and recorded losses."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_skin.data.pipeline.balance.curriculum import Curriculum, class_rarity, curriculum_tables
from keras_skin.registry import UserError

# HAM10000's class counts, a tenth of them
LABELS = np.repeat(["nv", "mel", "bkl", "bcc", "akiec", "vasc", "df"], [670, 111, 110, 51, 33, 14, 11])


def rng(epoch, seed=0):
    return np.random.default_rng([seed, epoch])


def losses_of(curriculum, rows, epoch):
    """A model that learns: every image has a difficulty of its own, the loss falls with the epochs."""
    own = np.random.default_rng(5).gamma(1.0, 1.0, len(LABELS)) * (1 + class_rarity(LABELS))
    return own[rows] / (1 + epoch) + np.random.default_rng([6, epoch]).uniform(0, 0.1, len(rows))


def trained(epochs, **settings):
    """A curriculum after that many epochs, and the draws of all of them and the next."""
    curriculum = Curriculum(LABELS, **settings)
    draws = []
    for epoch in range(epochs):
        draws.append(curriculum.draw(LABELS, epoch, rng(epoch)))
        rows = np.random.default_rng([9, epoch]).permutation(draws[-1].rows)
        curriculum.record(epoch, rows, losses_of(curriculum, rows, epoch))
    return curriculum, [*draws, curriculum.draw(LABELS, epochs, rng(epochs))]


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("rows", "admitted", "replayed"))


def test_rarity_is_the_cross_entropy_of_the_class_shares():
    expected = [-np.log(np.mean(label == LABELS)) for label in LABELS]
    np.testing.assert_allclose(class_rarity(LABELS), expected, rtol=1e-12)
    assert not class_rarity(np.array(["", ""])).any()


def test_admission_follows_difficulty_and_the_pacing():
    curriculum = Curriculum(LABELS, start_share=0.5, full_after=4)
    for epoch, share in enumerate([0.5, 0.625, 0.75, 0.875, 1.0, 1.0]):
        draw = curriculum.draw(LABELS, epoch, rng(epoch))
        assert draw.admitted.sum() == curriculum.admitted_count(epoch) == round(share * 1000)
        if epoch < 4:
            assert curriculum.difficulty[draw.admitted].max() <= curriculum.difficulty[~draw.admitted].min()
        curriculum.record(epoch, draw.rows, losses_of(curriculum, draw.rows, epoch))
    root = Curriculum(LABELS, start_share=0.5, full_after=4, pacing="root")
    expected = [round(1000 * np.sqrt(0.25 + 0.75 * epoch / 4)) for epoch in range(4)]
    assert [root.admitted_count(epoch) for epoch in range(6)] == [*expected, 1000, 1000]


def test_common_classes_come_before_rare_ones():
    _, draws = trained(6, start_share=0.3, full_after=5)
    first = {name: next(i for i, d in enumerate(draws) if (LABELS[d.admitted] == name).any()) for name in np.unique(LABELS)}
    assert first["nv"] == 0 < first["mel"] <= first["bcc"] <= first["akiec"] <= first["df"] <= 5
    assert draws[5].admitted.all()
    _, defaults = trained(0)
    assert set(LABELS[defaults[0].rows]) == {"nv", "mel"}


def test_the_rest_of_a_class_is_admitted_in_a_random_order():
    one, other = (set(np.flatnonzero(Curriculum(LABELS, seed, 0.3).draw(LABELS, 0, rng(0)).admitted)) for seed in (0, 1))
    assert len(one) == len(other) == 300
    assert one != other
    assert max(one) > 600


def test_without_replay_admitted_images_are_shown_equally_often():
    _, draws = trained(3, start_share=0.4, full_after=3, replay_probability=0.0)
    for draw in draws:
        assert not draw.replayed.any()
        times = np.bincount(draw.rows, minlength=1000)
        assert set(times[draw.admitted]) <= {len(LABELS) // draw.admitted.sum(), len(LABELS) // draw.admitted.sum() + 1}
        assert not times[~draw.admitted].any()
    np.testing.assert_array_equal(np.sort(draws[3].rows), np.arange(1000))


def test_replay_shows_the_hardest_images_of_those_shown_before():
    curriculum, draws = trained(3, buffer_share=0.1, replay_probability=0.3)
    assert not draws[0].replayed.any()
    shown = np.unique(np.concatenate([draw.rows for draw in draws[:3]]))
    hardest = shown[np.argsort(curriculum.difficulty[shown])[::-1][: -(-len(shown) // 10)]]
    replayed = draws[3].rows[draws[3].replayed]
    assert set(replayed) <= set(hardest)
    assert len(set(replayed)) > 0.8 * len(hardest)  # about three replays for each of them


def test_replays_have_their_share_and_are_spread_evenly():
    curriculum, draws = trained(1, replay_probability=0.25, buffer_share=0.02)
    many = [curriculum.draw(LABELS, 1, rng(1, seed)) for seed in range(200)]
    shares = [draw.replayed.mean() for draw in many]
    deviation = np.sqrt(0.25 * 0.75 / 1000)  # of one epoch's share, a binomial one
    assert np.mean(shares) == pytest.approx(0.25, abs=4 * deviation / np.sqrt(200))
    assert np.std(shares) == pytest.approx(deviation, rel=0.25)
    times = np.bincount(np.concatenate([draw.rows[draw.replayed] for draw in many]))
    times = times[times > 0]
    assert len(times) == -(-len(np.unique(draws[0].rows)) // 50)
    assert (np.abs(times - times.mean()) < 5 * np.sqrt(times.mean())).all()


def test_running_losses_are_those_of_a_loop():
    curriculum = Curriculum(LABELS, momentum=0.8)
    expected = [-np.log(np.mean(label == LABELS)) for label in LABELS]
    random = np.random.default_rng(0)
    for epoch in range(3):
        rows, losses = random.integers(1000, size=700), random.gamma(1.0, size=700)
        curriculum.record(epoch, rows, losses)
        for row in set(rows.tolist()):
            own = [loss for place, loss in zip(rows, losses, strict=True) if place == row]
            expected[row] = 0.8 * expected[row] + 0.2 * sum(own) / len(own)
    np.testing.assert_allclose(curriculum.difficulty, expected, rtol=1e-12)


def test_past_epochs_are_drawn_again_and_future_ones_are_refused():
    curriculum, draws = trained(4)
    for epoch, draw in enumerate(draws):
        assert same(curriculum.draw(LABELS, epoch, rng(epoch)), draw)
        assert not same(curriculum.draw(LABELS, epoch, rng(epoch, seed=1)), draw)
    for epoch in (-1, 5):
        with pytest.raises(ValueError, match="decided on the epochs 0 to 4"):
            curriculum.draw(LABELS, epoch, rng(0))
    with pytest.raises(ValueError, match="expected those of epoch 4"):
        curriculum.record(3, np.arange(2), np.ones(2))
    with pytest.raises(ValueError, match="not finite"):
        curriculum.record(4, np.arange(2), np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="labels differ from those"):
        curriculum.draw(LABELS[:-1], 0, rng(0))


def test_a_draw_is_no_handle_on_the_state():
    curriculum, draws = trained(1)
    draws[1].admitted[:] = False
    draws[1].rows[:] = 0
    assert same(curriculum.draw(LABELS, 1, rng(1)), trained(1)[1][1])


def test_state_goes_through_json_and_continues_bit_for_bit():
    curriculum, draws = trained(3, seed=4)
    text = json.dumps(curriculum.get_state())
    assert len(text) < 16_000  # of which the losses take 10,700: 64 bits per image
    other = Curriculum(LABELS, seed=4)
    other.set_state(json.loads(text))
    assert other.epoch == 3
    assert all(same(other.draw(LABELS, epoch, rng(epoch)), draw) for epoch, draw in enumerate(draws))
    for one in (curriculum, other):
        one.record(3, draws[3].rows, losses_of(one, draws[3].rows, 3))
    assert json.dumps(curriculum.get_state()) == json.dumps(other.get_state())


def test_a_state_of_another_curriculum_is_refused():
    state = trained(1)[0].get_state()
    with pytest.raises(UserError) as caught:
        Curriculum(LABELS[1:], momentum=0.9).set_state(state)
    assert "'momentum' was 0.5 and is now 0.9" in str(caught.value)
    assert "it had 1000 training images, now there are 999" in str(caught.value)


def test_all_bad_settings_are_named_at_once():
    with pytest.raises(UserError) as caught:
        Curriculum(
            LABELS, 0, start_share=0, full_after=0, pacing="liner", replay_probability=1.0, buffer_share="all", momentum=-1
        )
    for words in (
        "start_share is 0, expected a number in (0, 1]",
        "full_after is 0, expected a whole number of epochs, 1 or more",
        "pacing is 'liner'. Did you mean 'linear'? Valid: linear, root",
        "replay_probability is 1.0, expected a number in [0, 1)",
        "buffer_share is 'all'",
        "momentum is -1",
    ):
        assert words in str(caught.value)
    with pytest.raises(UserError, match="there are none"):
        Curriculum([])
    Curriculum(LABELS, start_share=1, replay_probability=0, buffer_share=1, momentum=0)


def test_tables_count_by_class():
    _, draws = trained(2, full_after=2)
    admitted, replayed = curriculum_tables(draws, LABELS, ["df", "nv", "none"])
    assert admitted.index.tolist() == [1, 2, 3]
    assert admitted.loc[3].tolist() == [11, 670, 0]
    assert replayed.loc[1].tolist() == [0, 0, 0]
    rows = draws[2].rows[draws[2].replayed].tolist()
    assert replayed.loc[3].tolist() == [sum(LABELS[row] == name for row in rows) for name in ("df", "nv", "none")]
    empty, _ = curriculum_tables([], LABELS, ["nv"])
    assert empty.shape == (0, 1)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from("abc"), min_size=1, max_size=40),
    seed=st.integers(0, 2**32),
    start=st.floats(0.01, 1.0),
    full_after=st.integers(1, 5),
    pacing=st.sampled_from(["linear", "root"]),
    replay=st.floats(0.0, 0.99),
    buffer=st.floats(0.01, 1.0),
    momentum=st.floats(0.0, 0.99),
)
def test_any_curriculum_keeps_its_promises(labels, seed, start, full_after, pacing, replay, buffer, momentum):
    labels = np.array(labels)
    curriculum = Curriculum(labels, seed % 7, start, full_after, pacing, replay, buffer, momentum)
    shown, admitted = set(), 0
    for epoch in range(full_after + 2):
        draw = curriculum.draw(labels, epoch, rng(epoch, seed))
        assert same(draw, curriculum.draw(labels, epoch, rng(epoch, seed)))
        assert len(draw.rows) == len(draw.replayed) == len(labels)
        assert draw.rows.dtype == np.int64
        assert draw.partners is None
        assert draw.shares is None
        assert set(draw.rows[draw.replayed]) <= shown
        assert draw.admitted[draw.rows[~draw.replayed]].all()
        assert admitted <= draw.admitted.sum()
        admitted = draw.admitted.sum()
        shown |= set(draw.rows)
        curriculum.record(epoch, draw.rows, np.random.default_rng([seed, epoch, 1]).gamma(1.0, size=len(labels)))
    assert admitted == len(labels)
