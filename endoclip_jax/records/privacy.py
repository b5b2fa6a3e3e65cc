"""What keeps persons out of the stored data: salted hashes for ids, scrubbing for text."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from endoclip_jax.errors import UserError

SALT_BYTES = 32


def new_salt() -> bytes:
    """A secret for the ids of one hospital's data sets."""
    return secrets.token_bytes(SALT_BYTES)


def read_salt(path: Path) -> bytes:
    """The salt stored in a file as hexadecimal digits."""
    try:
        salt = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a salt ({error})") from error
    if len(salt) < SALT_BYTES // 2:
        raise UserError(f"{path} holds a salt of {len(salt)} bytes: {SALT_BYTES} are needed")
    return salt


def hashed(salt: bytes, kind: str, identifier: str) -> str:
    """HMAC-SHA256 of an id of some kind ("patient", "exam"), cut to 16 hexadecimal digits."""
    message = f"{kind}\0{identifier}".encode()
    return hmac.new(salt, message, hashlib.sha256).hexdigest()[:16]


_LABELS = (
    r"patient(?:'s)?(?: name)?|name|surname|forename|endoscopist|examiner|physician|doctor|"
    r"nurse|assistant|referr(?:ed by|er|ing physician)|reported by|performed by|signed(?: by)?|"
    r"consultant|operator|an(?:a)?esthetist"
)
_LABELS_ZH = (
    "姓名|患者|病人|检查医[师生]|报告医[师生]|审核医[师生]|操作医[师生]|主治医[师生]|"
    "申请医[师生]|麻醉医[师生]|记录者|护士|医[师生]签名|签名|检查者|报告者|医[师生]"
)
_NAME = r"[A-Z][\w'’-]*\.?(?:[ ,]{1,2}[A-Z][\w'’-]*\.?){0,3}"
_LABELLED_NAME = re.compile(rf"(?i:\b(?:{_LABELS}))[ \t]*[:：][ \t]*({_NAME})")
_LABELLED_NAME_ZH = re.compile(rf"(?:{_LABELS_ZH})[ \t]*[:：][ \t]*([\u4e00-\u9fff·]{{2,4}})")
_TITLED_NAME = re.compile(
    rf"\b(?:Drs?|Mrs?|Ms|Miss|Prof(?:essor)?|Doctor|Nurse|Sister)\b\.?[ \t]+({_NAME})"
)
_TITLED_NAME_ZH = re.compile(
    r"([\u4e00-\u9fff]{2,3})(?:主任医师|副主任医师|主治医师|主任|医师|医生|教授|护士)"
)
_NAMES = (_LABELLED_NAME, _LABELLED_NAME_ZH, _TITLED_NAME)

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATES = re.compile(
    r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b"
    r"|\b\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})\b"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?[ -]{_MONTH}\.?,?[ -]\d{{2,4}}\b"
    rf"|\b{_MONTH}\.?[ ]\d{{1,2}}(?:st|nd|rd|th)?,?[ ]\d{{4}}\b"
    rf"|\b{_MONTH}\.?[ ]\d{{4}}\b"
    r"|\d{4}\s*年(?:\s*\d{1,2}\s*月(?:\s*\d{1,2}\s*[日号])?)?"
    r"|\d{1,2}\s*月\s*\d{1,2}\s*[日号]",
    re.IGNORECASE,
)
_NUMBERS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.]+"  # e-mail
    r"|(?<![\w.])\+?\d{2,4}[ -]\d{3,4}[ -]\d{3,4}(?![\w.])"  # telephone
    r"|(?<![A-Za-z0-9.])[A-Za-z]{0,4}-?\d{5,}[Xx]?(?![A-Za-z0-9])"  # identity, record, telephone
    r"|(?<![A-Za-z0-9.])[A-Z]{1,4}-?\d{4}(?![A-Za-z0-9])"
)
_RECORD_NUMBER = re.compile(
    r"((?i:\b(?:MRN|NHS|ID|hospital n(?:o|umber)|accession(?: n(?:o|umber))?)\b)[.:#：]*[ \t]*)"
    r"([A-Za-z]{0,4}[\d-]{3,})"
    r"|((?:住院号|门诊号|检查号|病历号|病案号|登记号|身份证号?|电话|手机)[:： \t]*)"
    r"([A-Za-z\d-]{3,})"
)

NAME_MARK, DATE_MARK, NUMBER_MARK = "[name]", "[date]", "[number]"


def names_in(report: str) -> frozenset[str]:
    """Names of persons that a report gives away by a label ("Patient: ...") or a title.

    With every part of three letters or more, for "Roe, Jane" may be "Mrs Roe" further down.
    """
    found = {match.group(1) for pattern in _NAMES for match in pattern.finditer(report)}
    whole = {name.strip(" ,.") for name in found}
    parts = {part.strip(".") for name in whole for part in re.split(r"[ ,]+", name)}
    return frozenset(
        {name for name in whole if len(name) > 1} | {part for part in parts if len(part) > 2}
    )


def scrub(text: str, names: Iterable[str] = (), identifiers: Iterable[str] = ()) -> str:
    """The text with names of persons, dates, and numbers that identify replaced by marks.

    Args:
      text: what is to be stored.
      names: names known from elsewhere in the report, replaced wherever they stand.
      identifiers: the examination's own raw ids, replaced wherever they stand.
    """
    for known, mark in ((identifiers, NUMBER_MARK), (names, NAME_MARK)):
        for word in sorted((word for word in known if len(word) > 1), key=len, reverse=True):
            if word not in text:  # as of most: a pattern takes far longer to make than to find
                continue
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", mark, text)
    for pattern in _NAMES:
        text = pattern.sub(lambda match: match.group(0).replace(match.group(1), NAME_MARK), text)
    text = _TITLED_NAME_ZH.sub(
        lambda match: match.group(0).replace(match.group(1), NAME_MARK), text
    )
    text = _DATES.sub(DATE_MARK, text)
    text = _RECORD_NUMBER.sub(lambda match: (match.group(1) or match.group(3)) + NUMBER_MARK, text)
    return _NUMBERS.sub(NUMBER_MARK, text)
