"""Bad input gives one clear line per error, with line and column; never a traceback."""

import pytest

from labproof.inventory.load import LabError, load_lab

GOOD = """\
lab: home
hosts:
  - name: pve1
    ssh: {address: pve1.lan}
gpus:
  - {name: card, host: pve1, device: "10de:2204", address: "0000:01:00.0"}
"""


@pytest.fixture
def lab_file(tmp_path):
    def write(text):
        path = tmp_path / "lab.yaml"
        path.write_text(text)
        return path

    return write


def errors_of(path):
    with pytest.raises(LabError) as caught:
        load_lab(path)
    return [line.split("lab.yaml:", 1)[1] for line in caught.value.lines]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("0000:01:00.0", "0000:01:00.0"),
        ("81:00.0", "81:00.0"),
        ("0000:41:00.0", "0000:41:00.0"),
        ("01:00.0", "01:00.0"),
    ],
)
def test_unquoted_pci_addresses_stay_what_the_owner_typed(lab_file, typed, kept):
    text = GOOD.replace('"0000:01:00.0"', typed)
    assert load_lab(lab_file(text)).gpus[0].address == kept


@pytest.mark.parametrize("typed", ["10:20", "0300", "2204", "on", "12:30:45", "1e3"])
def test_unquoted_scalars_of_yaml_1_1_are_text(lab_file, typed):
    from labproof.inventory.yaml_marks import read

    value, _ = read(f"class: {typed}\n", "lab.yaml")
    assert str(value["class"]) == typed


def test_all_errors_at_once_with_line_column_and_suggestion(lab_file):
    text = GOOD.replace("ssh: {address: pve1.lan}", "ssh: {adress: pve1.lan}").replace("host: pve1", "host: pve2")
    text = text.replace('"10de:2204"', '"10DE:2204"')
    lines = errors_of(lab_file(text))
    assert any("did you mean 'address'?" in line and line.startswith("4:11:") for line in lines)
    assert any("'10DE:2204' is not vendor:device" in line and line.startswith("6:") for line in lines)


def test_dangling_names_are_found_with_a_suggestion(lab_file):
    (line,) = errors_of(lab_file(GOOD.replace("host: pve1,", "host: pve2,")))
    assert line == "6:18: gpus[0].host: no host called 'pve2' is declared; did you mean 'pve1'? declared: pve1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty file"),
        ("- a\n", "a list"),
        ("lab: [unclosed\n", "expected"),
        ("lab: a\nlab: b\n", "is there twice"),
        ("lab: \t\tx: : y\n", ""),
    ],
)
def test_a_file_that_is_no_lab_is_one_line(lab_file, text, said):
    (line,) = errors_of(lab_file(text))
    assert said in line


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(LabError, match="cannot be read: No such file"):
        load_lab(tmp_path / "lab.yaml")


class TestSecrets:
    PVE = GOOD.replace(
        "    ssh: {address: pve1.lan}\n",
        "    ssh: {address: pve1.lan}\n    pve: {url: 'https://p:8006', token_id: a@pve!b, token_secret: 'SECRET'}\n",
    )

    def test_a_secret_in_the_file_is_refused_without_repeating_it(self, lab_file):
        (line,) = errors_of(lab_file(self.PVE.replace("SECRET", "hunter2-in-plain")))
        assert "use ${NAME} or file:PATH" in line
        assert "hunter2" not in line

    def test_from_the_environment(self, lab_file, monkeypatch):
        monkeypatch.setenv("PVE_TOKEN", "from-env")
        lab = load_lab(lab_file(self.PVE.replace("SECRET", "${PVE_TOKEN}")))
        assert lab.hosts[0].pve.token_secret.get_secret_value() == "from-env"
        assert "from-env" not in repr(lab)

    def test_an_unset_variable_is_named(self, lab_file, monkeypatch):
        monkeypatch.delenv("PVE_TOKEN", raising=False)
        (line,) = errors_of(lab_file(self.PVE.replace("SECRET", "${PVE_TOKEN}")))
        assert "${PVE_TOKEN} is not set" in line

    def test_from_a_file_beside_the_lab(self, lab_file, tmp_path):
        (tmp_path / "token").write_text("from-file\n")
        lab = load_lab(lab_file(self.PVE.replace("SECRET", "file:token")))
        assert lab.hosts[0].pve.token_secret.get_secret_value() == "from-file"

    def test_an_unreadable_file_is_named_by_its_key(self, lab_file):
        (line,) = errors_of(lab_file(self.PVE.replace("SECRET", "file:nowhere")))
        assert "token_secret: the file of this secret cannot be read: No such file" in line
