from keras_skin.run_folder import RunFolder
from keras_skin.workflow.completeness import missing_images
from tests.evaluation.run_folders import write_run

HEADINGS = "dataset,image_id,file,reason,split,kind\n"


def test_images_that_are_not_on_the_disk_are_counted(tmp_path):
    run = RunFolder(write_run(tmp_path / "run"))
    rows = ["ph2,A,,no row,train,missing image", "ph2,A,,again,test,missing image", "ph2,B,,blurred,train,bad file"]
    (run / "excluded.csv").write_text(HEADINGS + "\n".join([*rows, "isic2016,C,,no row,,missing image"]))
    assert missing_images(run) == {"isic2016": 1, "ph2": 1}


def test_a_run_of_an_earlier_version_gives_nothing(tmp_path):
    run = RunFolder(write_run(tmp_path / "run"))
    (run / "excluded.csv").write_text("dataset,image_id,file,reason,split\nph2,A,,no row,train\n")
    assert missing_images(run) == {}
