import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.decomposition import PCA

from keras_skin.data.images import thumbnails
from keras_skin.data.pipeline import balance
from keras_skin.data.pipeline.balance.repeats import Oversample, Partial
from keras_skin.data.pipeline.balance.smote import Smote
from keras_skin.registry import UserError

HAM10000 = {"akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "nv": 6705, "vasc": 142}
LABELS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=60).map(lambda names: np.array(names, object))


def random(seed=0, epoch=0):
    return np.random.default_rng([seed, epoch])


def features(labels, seed=0):
    return np.random.default_rng(seed).normal(size=(len(labels), 3))


def samplers(labels, target, strength):
    return [
        Oversample(target),
        Partial(strength),
        Smote(target, neighbours=3).fit(features(labels), labels),
    ]


def counted(labels):
    return {name: int((labels == name).sum()) for name in sorted(set(labels))}


@settings(max_examples=60, deadline=None)
@given(LABELS, st.one_of(st.just("majority"), st.integers(1, 90)), st.floats(0, 1), st.integers(0, 5))
def test_every_sampler_keeps_its_promises(labels, target, strength, epoch):
    for sampler in samplers(labels, target, strength):
        draw = sampler.draw(labels, epoch, random(epoch=epoch))
        assert draw.rows.dtype == np.int64
        assert draw.rows.min() >= 0
        assert draw.rows.max() < len(labels)
        assert counted(labels[draw.rows]) == sampler.counts(labels)
        shown = np.bincount(draw.rows, minlength=len(labels))
        assert shown.min() >= 1
        for name in set(labels):
            assert np.ptp(shown[labels == name]) <= 1
        again = sampler.draw(labels, epoch, random(epoch=epoch))
        np.testing.assert_array_equal(draw.rows, again.rows)
        later = sampler.draw(labels, epoch + 1, random(epoch=epoch + 1))
        assert len(later.rows) == len(draw.rows)
        if draw.partners is not None:
            np.testing.assert_array_equal(draw.partners, again.partners)
            np.testing.assert_array_equal(draw.shares, again.shares)
            np.testing.assert_array_equal(labels[draw.partners], labels[draw.rows])
            assert draw.shares.dtype == np.float32
            assert ((draw.shares >= 0) & (draw.shares < 1)).all()
            alone = draw.partners == draw.rows
            assert (draw.shares[alone] == 0).all()
            assert set(draw.rows[alone]) == set(range(len(labels)))  # every image once as it is


@settings(max_examples=60, deadline=None)
@given(LABELS, st.floats(0, 1), st.floats(0, 1))
def test_partial_balancing_grows_with_its_strength_and_keeps_the_order_of_the_classes(labels, one, other):
    weaker, stronger = (Partial(value).counts(labels) for value in sorted((one, other)))
    natural = counted(labels)
    largest = max(natural.values())
    for name in natural:
        assert natural[name] <= weaker[name] <= stronger[name] <= largest
        for second in natural:
            if natural[name] <= natural[second]:
                assert stronger[name] <= stronger[second]
    assert Partial(0).counts(labels) == natural
    assert Partial(1).counts(labels) == dict.fromkeys(natural, largest) == Oversample().counts(labels)


def test_partial_balancing_of_ham10000():
    labels = np.repeat(np.array(list(HAM10000), object), list(HAM10000.values()))
    counts = Partial().counts(labels)
    # The geometric mean of a class and the largest: sqrt(327 * 6705) = 1480.7 and so on.
    assert counts == {"akiec": 1481, "bcc": 1856, "bkl": 2715, "df": 878, "mel": 2732, "nv": 6705, "vasc": 976}
    assert Oversample(1000).counts(labels) == {name: max(1000, number) for name, number in HAM10000.items()}


def test_which_images_are_repeated_changes_with_the_epoch():
    labels = np.array(["a"] * 10 + ["b"] * 15, object)
    sampler = Oversample()
    repeated = [np.flatnonzero(np.bincount(sampler.draw(labels, epoch, random(0, epoch)).rows) == 2) for epoch in range(40)]
    assert all(len(rows) == 5 and rows.max() < 10 for rows in repeated)
    assert set().union(*map(set, repeated)) == set(range(10))


def test_smote_blends_with_the_nearest_of_its_class():
    labels = np.array(list("aaaaaaaabbbbbbbbbbbbbbbbbbbbccccd"), object)
    vectors = features(labels, 4)
    sampler = Smote(neighbours=5).fit(vectors, labels)
    partners_of = {row: set() for row in range(len(labels))}
    for epoch in range(60):
        draw = sampler.draw(labels, epoch, random(0, epoch))
        for row, partner in zip(draw.rows, draw.partners, strict=True):
            partners_of[row].add(partner)
    for row, partners in partners_of.items():
        others = [other for other in range(len(labels)) if labels[other] == labels[row] and other != row]
        others.sort(key=lambda other: sum((vectors[row] - vectors[other]) ** 2))
        nearest = {} if labels[row] == "b" else others[:5]  # the largest class grows by nothing
        assert partners == {row, *nearest}
    assert sampler.notes == ["Balancing: the one training image of 'd' has no neighbour to blend with; it is repeated."]


def test_smote_shares_are_even():
    labels = np.array(["a"] * 10 + ["b"] * 4000, object)
    draw = Smote().fit(features(labels), labels).draw(labels, 0, random())
    shares = np.sort(draw.shares[draw.partners != draw.rows])
    assert len(shares) == 3990
    assert np.abs(shares - np.linspace(0, 1, len(shares))).max() < 1.63 / np.sqrt(len(shares))  # Kolmogorov-Smirnov at 1 %


def test_smote_draws_only_from_what_it_was_fitted_with():
    labels = np.array(list("aab"), object)
    with pytest.raises(ValueError, match="fit it with features of the training split"):
        Smote().draw(labels, 0, random())
    with pytest.raises(ValueError, match="fit it with features of the training split"):
        Smote().fit(features(labels), labels).draw(labels[::-1], 0, random())
    for wrong in (np.zeros((2, 3)), np.zeros(3), np.full((3, 2), np.nan)):
        with pytest.raises(ValueError, match="a matrix of finite features with 3 rows"):
            Smote().fit(wrong, labels)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("oversample", {"target": "minority"}, r"balancing\.target is 'minority', expected 'majority' or a whole number"),
        ("oversample", {"target": 0}, r"balancing\.target is 0"),
        ("smote", {"target": 0.5}, r"balancing\.target is 0\.5"),
        ("smote", {"neighbours": 0}, r"balancing\.neighbours is 0, expected a whole number from 1 on"),
        ("partial", {"strength": 1.5}, r"balancing\.strength is 1\.5, expected a number from 0 to 1"),
        ("partial", {"strength": True}, r"balancing\.strength is True"),
    ],
)
def test_arguments_out_of_range_are_refused(name, arguments, message):
    with pytest.raises(UserError, match=message):
        balance.get(name).builder(**arguments)


def test_names_and_arguments_are_read_from_the_source():
    assert balance.names() == ["curriculum", "none", "oversample", "partial", "smote"]
    assert set(balance.registry.parameters("smote")) == {"target", "neighbours"}
    assert [name for name in balance.names() if balance.get(name).info.get("needs_features")] == ["smote"]


def test_thumbnails_keep_the_distances_of_standardised_pictures(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    pictures[:, 0, 0] = 7  # a pixel without variance
    paths = [str(tmp_path / f"{number}.png") for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    components = thumbnails.thumbnail_features(paths)
    assert components.shape == (12, 12)
    np.testing.assert_array_equal(components, thumbnails.thumbnail_features(paths))
    flat = pictures.reshape(12, -1).astype(float)
    spread = flat.std(axis=0)
    standard = (flat - flat.mean(axis=0)) / np.where(spread > 0, spread, 1)
    np.testing.assert_allclose(distances(components), distances(standard), rtol=1e-6)  # twelve components hold all there is
    few = thumbnails.thumbnail_features(paths, components=3, seed=1)
    exact = PCA(3, svd_solver="full").fit_transform(standard)
    np.testing.assert_allclose(np.abs(few), np.abs(exact), rtol=1e-3, atol=1e-2)


def distances(vectors):
    return np.linalg.norm(vectors[:, np.newaxis] - vectors[np.newaxis], axis=-1)
