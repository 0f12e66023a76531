"""What a run says before its first packet about the apps it is going to ask."""

from pathlib import Path

from labproof import places
from labproof.inventory.load import load_lab
from labproof.report.announce import announcement


def told(patch=None):
    lab = load_lab(places.lab_file("t4-jellyfin"), patch, read_secrets=False)
    return "\n".join(announcement(lab, "real", Path("lab.yaml"), False, []))


def test_a_session_is_announced_with_its_end():
    text = told()
    assert "jellyfin at the pod of media/jellyfin, through the API server" in text
    assert "f27caa37e5142225cceded48f6553502; the session is ended again" in text


def test_an_app_that_is_only_read_says_so_and_a_parked_one_is_not_asked():
    assert "jellyfin at the pod of media/jellyfin, through the API server: reads only" in told(
        {"clusters": {"moody": {"apps": {"jellyfin": {"expect": {"item": None}}}}}}
    )
    assert "jellyfin at" not in told({"clusters": {"moody": {"apps": {"jellyfin": {"state": "parked"}}}}})
