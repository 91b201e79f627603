"""Clinical metadata: encoded as slow loops do, by the training split alone, and the same in NumPy, in TensorFlow and exported."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from keras_skin.data.datasets import readers
from keras_skin.data.metadata import MetadataEncoder, fit_metadata, imputer
from keras_skin.data.metadata.encoder import complete_rows
from keras_skin.registry import UserError

FIELDS = {"age": "numeric", "sex": "categorical", "size": "numeric", "site": "categorical"}
MODES = ("own_column", "mask", "drop", "impute")
NUMBERS = st.sampled_from(["", "", "0", "0.0", "5", "45.0", "45", "80", "1e3"])
WORDS = st.sampled_from(["", "", "UNK", "female", "male", "back", "Rücken", "head/neck"])
ROWS = st.lists(st.tuples(NUMBERS, WORDS, NUMBERS, WORDS), min_size=1, max_size=12)
COMPLETE = ("45", "female", "3", "back")


def table_of(rows):
    table = pd.DataFrame(rows, columns=list(FIELDS), dtype=str)
    return table.assign(image_id=[f"I{number}" for number in range(len(rows))])


TRAIN = table_of([COMPLETE, ("60", "male", "", "head/neck"), ("", "UNK", "8", ""), ("75.5", "", "12", "back")] * 6)
SERVED = table_of(
    [
        ("", "", "", ""),
        ("200", "UNK", "0", "UNK"),
        ("0", "diverse", "7.25", "palms"),
        ("61", "male", "", "back"),
        ("33", "female", "9", ""),
        ("", "FEMALE", "1e6", " back"),
    ]
)


def pad_fields():
    return readers.get("pad_ufes_20").info["metadata"]


def by_loops(train, table, mode):
    """The encoding as {column: value} for each row, cell by cell."""
    if mode == "drop":
        train = train[(train[list(FIELDS)] != "").all(axis=1)]
    encoded = []
    for _, row in table.iterrows():
        cells, known = {}, {}
        for name, kind in FIELDS.items():
            values = [cell for cell in train[name] if cell != ""]
            if kind == "numeric":
                numbers = [float(cell) for cell in values] or [0.0]
                mean = sum(numbers) / len(numbers)
                deviation = (sum((number - mean) ** 2 for number in numbers) / len(numbers)) ** 0.5
                value = min(max(float(row[name] or mean), min(numbers)), max(numbers))
                cells[name] = 0.0 if deviation < 1e-9 else (value - mean) / deviation
                known[name] = row[name] != ""
            else:
                unknown = "UNK" in values if mode == "drop" else mode == "own_column"
                vocabulary = sorted(set(values) - {"UNK"})
                for value in vocabulary:
                    cells[f"{name}={value}"] = float(row[name] == value)
                if unknown:
                    cells[f"{name}=UNK"] = float(row[name] != "" and row[name] not in vocabulary)
                known[name] = row[name] in vocabulary
            if mode == "own_column":
                cells[f"{name} is missing"] = float(row[name] == "")
        encoded.append(cells | ({f"{name} is known": float(known[name]) for name in FIELDS} if mode == "mask" else {}))
    return encoded


@pytest.mark.parametrize("mode", ["own_column", "mask", "drop"])
@settings(max_examples=25, deadline=None)
@given(train=ROWS, rows=ROWS)
def test_encodes_as_loops_do(mode, train, rows):
    train, table = table_of([*train, COMPLETE]), table_of(rows)
    encoder = fit_metadata(train, FIELDS, mode)
    expected = by_loops(train, table, mode)
    assert list(encoder.column_names) == list(expected[0])
    matrix = encoder.transform(table)
    assert matrix.dtype == np.float32
    assert matrix.shape == (len(rows), encoder.width)
    np.testing.assert_allclose(matrix, [list(row.values()) for row in expected], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=8, deadline=None)
@given(train=ROWS, rest=ROWS, other=ROWS, shuffle=st.randoms(use_true_random=False))
def test_only_the_training_rows_count_and_not_their_order(mode, train, rest, other, shuffle):
    train = [*train, COMPLETE]
    encoder = fit_metadata(table_of(train + rest).iloc[: len(train)], FIELDS, mode)
    order = list(range(len(train)))
    shuffle.shuffle(order)
    again = fit_metadata(table_of(train + other).iloc[order], FIELDS, mode)
    assert encoder.to_json() == again.to_json()
    before = encoder.transform(table_of(rest))
    assert np.isfinite(before).all()
    encoder.transform(table_of(other))
    np.testing.assert_array_equal(encoder.transform(table_of(rest + other))[: len(rest)], before)


@pytest.mark.parametrize("mode", MODES)
def test_json_gives_the_encoder_back_exactly(mode):
    encoder = fit_metadata(TRAIN, FIELDS, mode, never_inputs=["site"], inputs=["site", "age", "sex"])
    again = MetadataEncoder.from_json(encoder.to_json())
    assert again.to_json() == encoder.to_json()
    assert (again.fields, again.notes, again.column_names) == (encoder.fields, encoder.notes, encoder.column_names)
    np.testing.assert_array_equal(again.transform(SERVED), encoder.transform(SERVED))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 2}'])
def test_other_text_is_refused(text):
    with pytest.raises(UserError, match="metadata encoder"):
        MetadataEncoder.from_json(text)


def test_a_file_changed_by_hand_is_refused():
    plain = json.loads(fit_metadata(TRAIN, FIELDS).to_json())
    plain["fields"][1]["values"].reverse()
    with pytest.raises(UserError, match="changed by hand"):
        MetadataEncoder.from_json(json.dumps(plain))


def tensors(encoder, table):
    import tensorflow as tf

    def tensor(field):
        if field.kind == "numeric":
            return tf.constant([float(cell or -1) for cell in table[field.name]], tf.float32)
        return tf.constant(table[field.name].tolist(), tf.string)

    return {field.name: tensor(field) for field in encoder.fields}


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=10, deadline=None)
@given(train=ROWS, rows=ROWS)
def test_graph_equals_transform(mode, train, rows):
    encoder, table = fit_metadata(table_of([*train, COMPLETE]), FIELDS, mode), table_of(rows)
    np.testing.assert_allclose(encoder.graph(tensors(encoder, table)), encoder.transform(table), atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_same_in_tf_data_and_in_a_reloaded_saved_model(mode, tmp_path):
    import tensorflow as tf

    encoder = MetadataEncoder.from_json(fit_metadata(TRAIN, FIELDS, mode).to_json())
    fields, expected = tensors(encoder, SERVED), encoder.transform(SERVED)
    batches = list(tf.data.Dataset.from_tensor_slices(fields).batch(4).map(encoder.graph))
    np.testing.assert_allclose(np.concatenate(batches), expected, atol=1e-6)
    module = tf.Module()
    specs = {name: tf.TensorSpec((None,), tensor.dtype, name=name) for name, tensor in fields.items()}
    module.serve = tf.function(encoder.graph, input_signature=[specs])
    tf.saved_model.save(module, str(tmp_path))
    exported = tf.saved_model.load(str(tmp_path)).serve
    np.testing.assert_allclose(exported(fields), expected, atol=1e-6)
    assert not any("LookupTable" in node.type for node in exported.concrete_functions[0].graph.get_operations())


def test_graph_takes_strange_numbers_for_missing_or_for_the_nearest_seen():
    encoder = fit_metadata(TRAIN, FIELDS, inputs=["age"])
    encoded = np.asarray(encoder.graph({"age": np.float32([-1, -7, np.nan, np.inf, 1e9, 0])}))
    low, high = encoder.transform(table_of([("0", "", "", ""), ("1000", "", "", "")]))
    assert encoder.column_names == ("age", "age is missing")
    np.testing.assert_allclose(encoded, [[0, 1], [0, 1], [0, 1], high, high, low])
    with pytest.raises(ValueError, match="There is no tensor for the metadata age"):
        encoder.graph({"sex": ["male"]})


def test_importing_and_fitting_need_no_tensorflow():
    code = (
        "import sys, pandas as pd; from keras_skin.data.metadata import fit_metadata; "
        "fit_metadata(pd.DataFrame({'a': ['1', '2']}), {'a': 'numeric'}); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_blank_unknown_and_unseen_under_each_mode():
    """The modes side by side, for the field `sex`; the training split has female, male, UNK and blanks."""

    def rows(mode, train=TRAIN):
        encoder = fit_metadata(train, FIELDS, mode, inputs=["sex"])
        return encoder.column_names, encoder.transform(table_of([(0, cell, 0, 0) for cell in ("male", "", "UNK", "diverse")]))

    def check(result, names, expected):
        assert result[0] == names
        np.testing.assert_array_equal(result[1], expected)

    known = ("sex=female", "sex=male")
    without = TRAIN[TRAIN["sex"] != "UNK"]
    own = ((*known, "sex=UNK", "sex is missing"), [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0]])
    check(rows("own_column"), *own)
    check(rows("own_column", without), *own)
    check(rows("mask"), (*known, "sex is known"), [[0, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    check(rows("drop"), (*known, "sex=UNK"), [[0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]])
    check(rows("drop", without), known, [[0, 1], [0, 0], [0, 0], [0, 0]])
    half = [0.5, 0.5]
    check(rows("impute", without), known, [[0, 1], half, half, half])
    third = np.float32([1 / 3, 1 / 3, 1 / 3])
    check(rows("impute"), (*known, "sex=UNK"), [[0, 1, 0], third, [0, 0, 1], [0, 0, 1]])


def test_availability():
    encoder = fit_metadata(TRAIN, FIELDS, "mask")
    expected = [[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [1, 1, 1, 0], [0, 0, 1, 0]]
    assert [encoder.column_names[index] for index in encoder.availability_columns] == [f"{name} is known" for name in FIELDS]
    np.testing.assert_array_equal(encoder.transform(SERVED)[:, encoder.availability_columns], expected)
    assert fit_metadata(TRAIN, FIELDS).availability_columns == ()


def test_drop_learns_from_complete_rows_and_leaves_the_others_out():
    encoder = fit_metadata(TRAIN, FIELDS, "drop")
    assert encoder.column_names == ("age", "sex=female", "size", "site=back")
    assert encoder.notes == ("Metadata: 18 of 24 training rows lack a field and are left out.",)
    np.testing.assert_array_equal(complete_rows(SERVED, list(FIELDS)), [False, True, True, False, False, False])
    with pytest.raises(UserError, match=r"no training row \(of 6\) has all of the fields age, sex, size, site"):
        fit_metadata(TRAIN[TRAIN["sex"] == ""], FIELDS, "drop")


def test_a_field_that_gives_the_label_away_is_used_only_by_name():
    fields = {"age": "numeric", "sex": "categorical"}
    table = TRAIN.assign(biopsed="True")
    assert fit_metadata(table, fields, never_inputs=("biopsed",)).column_names[0] == "age"
    assert not any("biopsed" in name for name in fit_metadata(table, fields, never_inputs=("biopsed",)).column_names)
    encoder = fit_metadata(table, fields, "drop", never_inputs=("biopsed",), inputs=["biopsed", "age"])
    assert encoder.column_names == ("biopsed=True", "age")
    assert any("SHORTCUT" in note and "'biopsed'" in note for note in encoder.notes)


def test_a_field_without_a_value_is_told_of_and_harmless():
    table = TRAIN.assign(size="", site="")
    for mode in ("own_column", "mask", "impute"):
        encoder = fit_metadata(table, FIELDS, mode)
        assert [note for note in encoder.notes if "no training row has the field" in note] == [
            f"Metadata: no training row has the field '{name}'; the model learns nothing from it." for name in ("size", "site")
        ]
        assert np.isfinite(encoder.transform(SERVED)).all()
        assert not encoder.transform(SERVED)[:, encoder.column_names.index("size")].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"missing": "masks"}, "missing is 'masks'. Did you mean 'mask'"),
        ({"inputs": ["aeg", "sex", "sex"]}, "(?s)no metadata field 'aeg'. Did you mean 'age'.*'sex' is named twice"),
        ({"inputs": []}, "No metadata field is left"),
        ({"preset": "pad_ufes_20"}, "no metadata preset 'pad_ufes_20'. Did you mean 'pad_ufes_20_81'"),
        ({"preset": "pad_ufes_20_81"}, r"does not have: diameter_1 \(numeric\)"),
        ({"fields": {"age": "number"}}, "'age' is 'number', expected 'numeric'"),
        ({"fields": {"age": "numeric", "weight": "numeric"}}, "The table has no metadata weight"),
        ({"table": TRAIN.assign(age="", sex="", size="", site="")}, r"no training row \(of 24\) has any of the fields"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        fit_metadata(**{"table": TRAIN, "fields": FIELDS, **arguments})


def test_cells_that_are_no_numbers_are_named_all_at_once():
    table = SERVED.assign(age=["old", "3", "-1", "nan", "", "1e7"], size=["1", "2", "3", "4", "5", "UNK"])
    table.index = [0] * len(table)
    with pytest.raises(UserError) as caught:
        fit_metadata(TRAIN, FIELDS).transform(table)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("5 cells of the metadata are no numbers, expected a number from 0 to 1,000,000, or nothing")
    wrong = ["I0: age is 'old'", "I2: age is '-1'", "I3: age is 'nan'", "I5: age is '1e7'", "I5: size is 'UNK'"]
    assert [line.strip() for line in lines[1:]] == wrong


def pad_table(rows, seed=0):
    """Random answers to the questions of PAD-UFES-20; every third row was not asked."""
    rng = np.random.default_rng(seed)
    answers = {name: rng.choice(["True", "False", "UNK", ""], rows) for name in pad_fields()}
    numbers = {name: rng.choice(["", "4.0", "9", "60"], rows) for name in ("age", "diameter_1", "diameter_2")}
    parents = {name: rng.choice(["BRASIL", "BRAZIL", "UNK", ""], rows) for name in ("background_father", "background_mother")}
    table = pd.DataFrame({**answers, **numbers, **parents}, dtype=str)
    table.loc[::3, "smoke":"diameter_1"] = ""
    return table


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["own_column", "drop", "impute"])
def test_the_preset_has_81_columns_whatever_the_training_split_holds(mode):
    complete = pd.DataFrame([{name: "50" if kind == "numeric" else "True" for name, kind in pad_fields().items()}])
    encoders = [fit_metadata(pd.concat([pad_table(40, seed), complete]), pad_fields(), mode, "pad_ufes_20_81") for seed in (0, 1)]
    assert encoders[0].width == 81
    assert encoders[0].column_names == encoders[1].column_names
    table = pad_table(30, 2)
    matrix = encoders[0].transform(table)
    np.testing.assert_allclose(encoders[0].graph(tensors(encoders[0], table)), matrix, atol=1e-6)
    names = encoders[0].column_names
    father = [index for index, name in enumerate(names) if name.startswith("background_father=")]
    for row, cell in zip(matrix[:, father], table["background_father"], strict=True):
        if cell:
            assert names[father[int(row.argmax())]] == f"background_father={cell}"
        assert row.sum() == pytest.approx(1 if cell or mode == "impute" else 0, abs=1e-5)


def test_what_the_preset_cannot_do_is_refused():
    for arguments in ({"missing": "mask"}, {"inputs": ["age"]}):
        with pytest.raises(UserError, match="the preset 'pad_ufes_20_81' is fixed"):
            fit_metadata(pad_table(9), pad_fields(), preset="pad_ufes_20_81", **arguments)


def test_imputation_of_numbers_is_that_of_scikit_learn():
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    rng = np.random.default_rng(0)
    full = rng.normal(size=(120, 4)) @ rng.normal(size=(4, 4))
    gaps = rng.random(full.shape) < [0.0, 0.3, 0.1, 0.2]
    limits = [(float(low), float(high)) for low, high in zip(full.min(axis=0), full.max(axis=0), strict=True)]
    bounds = [(index, index + 1) for index in range(4)]
    ours = imputer.fit_imputer(np.where(gaps, 0.0, full), gaps, bounds, limits, seed=3)
    network = MLPRegressor(hidden_layer_sizes=(imputer.HIDDEN,), alpha=imputer.L2, max_iter=imputer.EPOCHS, random_state=3)
    theirs = IterativeImputer(
        network,
        max_iter=imputer.ROUNDS,
        tol=1e-12,
        skip_complete=True,
        min_value=[low for low, _ in limits],
        max_value=[high for _, high in limits],
    )
    with pytest.warns(ConvergenceWarning):
        theirs.fit(np.where(gaps, np.nan, full))
    later = rng.normal(size=(50, 4))
    unknown = rng.random(later.shape) < 0.4
    unknown[0] = True
    filled = ours.fill(np.where(unknown, 0.0, later), unknown)
    np.testing.assert_allclose(filled[1:], theirs.transform(np.where(unknown, np.nan, later))[1:], atol=1e-6)
    assert np.isfinite(filled).all()


@pytest.mark.parametrize("classes", [[0, 1], [0, 2, 3]])
def test_probabilities_are_those_of_scikit_learn(classes):
    """Two classes have one logit there; a column that no training row has gets the probability zero."""
    rng = np.random.default_rng(1)
    others = rng.normal(size=(90, 5))
    codes = np.array(classes)[np.digitize(others[:, 0], [0.0, 0.7][: len(classes) - 1])]
    network = imputer._fit_network(0, None, others, np.eye(5)[codes], seed=2)
    theirs = MLPClassifier(hidden_layer_sizes=(imputer.HIDDEN,), alpha=imputer.L2, max_iter=imputer.EPOCHS, random_state=2)
    with pytest.warns(ConvergenceWarning):
        theirs.fit(others, codes)
    predicted = imputer.predict(network, None, others)
    np.testing.assert_allclose(predicted[:, classes], theirs.predict_proba(others), atol=1e-12)
    assert not np.delete(predicted, classes, axis=1).any()


def test_imputation_finds_what_other_fields_tell():
    rng = np.random.default_rng(0)
    men = rng.random(400) < 0.5
    table = pd.DataFrame(
        {"sex": np.where(men, "male", "female"), "size": np.where(men, "20", "5"), "grew": np.where(men, "y", "n")}
    )
    blank = rng.random(400) < 0.3
    fields = {"sex": "categorical", "size": "numeric", "grew": "categorical"}
    spoilt = table.assign(sex=table["sex"].mask(blank, ""), size=table["size"].mask(rng.random(400) < 0.3, ""))
    encoder = fit_metadata(spoilt, fields, "impute")
    matrix = encoder.transform(spoilt)
    male = matrix[blank][:, encoder.column_names.index("sex=male")]
    assert male[men[blank]].min() > 0.6
    assert male[~men[blank]].max() < 0.4
    np.testing.assert_allclose(matrix[:, :2].sum(axis=1), 1, atol=1e-6)
    known = ~blank
    np.testing.assert_array_equal(matrix[known, 1], men[known])
    assert any("of 1200 cells of the training split are missing" in note for note in encoder.notes)


def test_seed_decides_the_networks():
    assert fit_metadata(TRAIN, FIELDS, "impute").to_json() == fit_metadata(TRAIN, FIELDS, "impute", seed=0).to_json()
    assert fit_metadata(TRAIN, FIELDS, "impute").to_json() != fit_metadata(TRAIN, FIELDS, "impute", seed=1).to_json()


@pytest.fixture(scope="module")
def real_tables(real_data):
    files = {"pad_ufes_20": "metadata.csv", "isic2019": "ISIC_2019_Training_Metadata.csv", "ham10000": "HAM10000_metadata.csv"}
    return {name: pd.read_csv(real_data / "csv" / name / file, dtype=str, keep_default_na=False) for name, file in files.items()}


def test_the_real_isic2019_table_keeps_22480_rows(real_tables):
    table = real_tables["isic2019"]
    encoder = fit_metadata(table, readers.get("isic2019").info["metadata"], "drop")
    is_complete = complete_rows(table, [field.name for field in encoder.fields])
    assert int(is_complete.sum()) == 22480
    assert encoder.width == 1 + 2 + 8
    assert encoder.notes == ("Metadata: 2851 of 25331 training rows lack a field and are left out.",)
    matrix = encoder.transform(table[is_complete])
    np.testing.assert_allclose([matrix[:, 0].mean(), matrix[:, 0].std()], [0, 1], atol=1e-4)
    assert set(matrix[:, 1:].sum(axis=1)) == {2.0}


def test_the_real_ham10000_table(real_tables):
    encoder = fit_metadata(real_tables["ham10000"], readers.get("ham10000").info["metadata"], "mask", never_inputs=("dx_type",))
    assert encoder.width == 1 + 3 + 15 + 3  # the reader makes "unknown" blank; this is the table as published


def test_the_real_pad_ufes_20_table_encodes_81_wide(real_tables):
    table = real_tables["pad_ufes_20"]
    encoder = fit_metadata(table, pad_fields(), preset="pad_ufes_20_81")
    matrix = encoder.transform(table)
    assert matrix.shape == (2298, 81)
    assert set(encoder.column_names) == {
        *(name for name, kind in pad_fields().items() if kind == "numeric"),
        *(f"{name}={value}" for name, kind in pad_fields().items() if kind == "categorical" for value in set(table[name]) - {""}),
    }
    one_hot = matrix[:, 3:]
    assert set(np.unique(one_hot)) == {0.0, 1.0}
    assert int(one_hot.sum()) == int(
        (table[[name for name, kind in pad_fields().items() if kind == "categorical"]] != "").sum().sum()
    )
    assert int(matrix[:, encoder.column_names.index("grew=UNK")].sum()) == 402
    assert int(matrix[:, encoder.column_names.index("background_father=BRASIL")].sum()) == 3


@pytest.mark.slow
def test_the_real_pad_ufes_20_table_is_imputed_in_seconds(real_tables):
    table = real_tables["pad_ufes_20"]
    began = time.process_time()
    encoder = fit_metadata(table.iloc[:1532], pad_fields(), "impute", "pad_ufes_20_81")
    assert time.process_time() - began < 20
    matrix = encoder.transform(table)
    assert matrix.shape == (2298, 81)
    for name, kind in pad_fields().items():
        columns = [index for index, column in enumerate(encoder.column_names) if column.startswith(f"{name}=")]
        if kind == "categorical":
            np.testing.assert_allclose(matrix[:, columns].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(encoder.graph(tensors(encoder, table)), matrix, atol=1e-6)
    again = MetadataEncoder.from_json(encoder.to_json())
    np.testing.assert_array_equal(again.transform(table), matrix)
