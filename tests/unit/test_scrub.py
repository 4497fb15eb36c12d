"""Recordings name nobody: hosts, users, serials, UUIDs and chosen group names become placeholders."""

from glmplan.profiles.host import Completed
from glmplan.profiles.scrub import Scrubber, group_names, kept_environment, scrub
from glmplan.profiles.tape import Recorder, TapeHost

GPU = "GPU-d6889ff6-2523-9142-ca3c-1ca3f396a625"
OTHER = "GPU-11111111-2523-9142-ca3c-1ca3f396a625"


def scrubber() -> Scrubber:
    return Scrubber(["workhorse", "ada"], ["payments-api"], home="/srv/lovelace")


def test_uuids_keep_their_identity_and_lose_their_value() -> None:
    scrubbed = scrubber().text(f"{GPU} {OTHER} {GPU.upper()}").split()
    assert scrubbed[0].endswith("000000000001")
    assert scrubbed[1].endswith("000000000002")
    assert scrubbed[2].endswith("000000000001")


def test_names_homes_serials_and_addresses_are_removed() -> None:
    text = (
        '"serial_number" : "C02XG0FDJGH5",\n"model_number" : "Z1N20001GLL/A"\nworkhorse /home/ada/x /Users/grace/y '
        "/srv/lovelace/.cache 52:54:00:12:34:56 payments-api"
    )
    scrubbed = scrubber().text(text)
    for secret in (
        "C02XG0FDJGH5",
        "Z1N20001GLL",
        "workhorse",
        "ada",
        "grace",
        "/srv/lovelace",
        "52:54",
        "payments-api",
    ):
        assert secret not in scrubbed
    assert "/home/user/.cache" in scrubbed


def test_container_ids_become_numbers() -> None:
    container = "f" * 64
    assert scrubber().text(f"/docker/{container}") == f"/docker/{1:032d}"


def test_only_chosen_group_names_are_secrets() -> None:
    own = "0::/kubepods.slice/kubepods-burstable.slice/payments-api\n4:memory:/docker/abc\n"
    assert group_names(own) == ["payments-api", "abc"]


def test_ordinary_words_survive() -> None:
    line = "Metal Performance Efficiency root user GeForce RTX 3060 00000000:2D:00.0"
    assert scrubber().text(line) == line


def test_the_environment_keeps_a_short_list() -> None:
    env = {
        "CUDA_VISIBLE_DEVICES": GPU,
        "HF_TOKEN": "hf_secret",
        "AWS_SECRET_ACCESS_KEY": "x",
        "LLAMA_ARG_CTX_SIZE": "4096",
        "LLAMA_ARG_API_KEY": "sk-1",
        "HOME": "/srv/lovelace",
    }
    kept = kept_environment(env, scrubber())
    assert set(kept) == {"CUDA_VISIBLE_DEVICES", "LLAMA_ARG_CTX_SIZE", "HOME"}
    assert GPU not in kept["CUDA_VISIBLE_DEVICES"]


def test_everything_a_recorder_remembers_is_scrubbed() -> None:
    recorder = Recorder(_NoHost())
    recorder.reads = {"/srv/lovelace/a": f"x {GPU}"}
    recorder.folders = {"/srv/lovelace": ("ada",)}
    recorder.runs = {("tool", "/srv/lovelace/x"): Completed(returncode=0, stdout="workhorse", stderr="ada")}
    recorder.calls = {"nvml": {"devices": [{"uuid": GPU}]}}
    recorder.absent = {"read /srv/lovelace/b"}
    scrub(recorder, scrubber())
    everything = repr((recorder.reads, recorder.folders, recorder.runs, recorder.calls, recorder.absent))
    for secret in ("/srv/lovelace", "ada", "workhorse", "d6889ff6"):
        assert secret not in everything


class _NoHost(TapeHost):
    def __init__(self) -> None:
        """Nothing is asked of it."""
