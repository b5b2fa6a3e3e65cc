from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest

from endoclip_jax.errors import UserError
from endoclip_jax.records.privacy import hashed, names_in, new_salt, read_salt, scrub
from endoclip_jax.records.splits import split_of


def test_hashes_are_keyed_and_differ_by_kind():
    salt = b"s" * 32
    expected = hmac.new(salt, b"patient\x00P1", hashlib.sha256).hexdigest()[:16]
    assert hashed(salt, "patient", "P1") == expected
    assert len({expected, hashed(salt, "exam", "P1"), hashed(new_salt(), "patient", "P1")}) == 3


def test_a_salt_file_must_hold_a_salt(tmp_path):
    path = tmp_path / "salt"
    salt = new_salt()
    path.write_text(salt.hex())
    assert read_salt(path) == salt
    for content in ("abcd", "not hexadecimal"):
        path.write_text(content)
        with pytest.raises(UserError, match="salt"):
            read_salt(path)


@pytest.mark.parametrize(
    "text, secrets",
    [
        ("Patient: Jane Roe, seen today", ["Jane", "Roe"]),
        ("Discussed with Dr. Smith-Jones and Prof Miller.", ["Smith", "Miller"]),
        ("姓名:张三丰 检查", ["张三丰"]),
        ("李四医生检查", ["李四"]),
        ("on 2019-03-12, 12/03/2019 and 3.4.21", ["2019", "12", "21"]),
        ("on 12 March 2019 or Mar 12, 2019", ["2019", "12"]),
        ("2019年3月12日复查", ["2019", "12"]),
        ("MRN 12345678; tel 020 7946 0958; a@b.org", ["12345678", "7946", "a@b.org"]),
        ("检查号:A00123 门诊号 98765", ["00123", "98765"]),
        ("phone +44 7911 123456", ["123456"]),
        ("case P0042 again", ["P0042"]),
    ],
)
def test_persons_dates_and_numbers_are_scrubbed(text, secrets):
    stored = scrub(text)
    for secret in secrets:
        assert secret not in stored, stored


@pytest.mark.parametrize(
    "finding",
    [
        "A 12 mm 0-IIa polyp at 25 cm, NICE 2, JNET 2A, Kudo IIIL, 10 x 8 mm; 3-5 mm; BBPS 9.",
        "Sigmoid colon: sessile polyp 0.6 cm, smooth, pale.",
        "横结肠、直肠各见一枚Is型息肉,约0.4-0.5cm,NICE 2型,距肛缘25cm。",
        "May be sessile; LST-G-M of 35 mm in the ascending colon (3 of 4).",
    ],
)
def test_findings_are_left_as_they_are(finding):
    assert scrub(finding) == finding


def test_names_and_ids_known_from_elsewhere_are_scrubbed():
    report = "Patient name: Jane Roe\nFindings: Jane Roe has a 5 mm polyp (case 77-A)."
    stored = scrub("Jane Roe has a 5 mm polyp (case 77-A).", names_in(report), ("77-A", "x"))
    assert stored == "[name] has a 5 mm polyp (case [number])."


def test_a_part_of_a_name_is_a_name():
    names = names_in("Patient: Roe, Jane\nFindings: Roe has a polyp. Shown to Jane and Rowena.")
    stored = scrub("Roe has a polyp. Shown to Jane and Rowena.", names)
    assert stored == "[name] has a polyp. Shown to [name] and Rowena."


def test_splits_have_their_shares_and_a_patient_keeps_its_own():
    salt = b"s" * 32
    hashes = [hashed(salt, "patient", str(i)) for i in range(4000)]
    splits = [split_of(patient) for patient in hashes]
    for split, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert abs(np.mean([s == split for s in splits]) - share) < 0.025
    assert splits == [split_of(patient, (8, 1, 1)) for patient in hashes]
    assert {split_of(patient, (0, 0, 1)) for patient in hashes} == {"test"}
