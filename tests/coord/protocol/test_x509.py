"""The subject of a certificate as text (specification 11.4): what Java's `X500Principal.getName()` says."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Name, NameAttribute, RelativeDistinguishedName
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from coord.protocol.jute import DecodeError
from coord.protocol.x509 import subject_name

KEY = ec.generate_private_key(ec.SECP256R1())
CN, O, C = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.COUNTRY_NAME


def certificate(subject: Name) -> bytes:
    begin = datetime.datetime(2026, 1, 1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(Name([NameAttribute(CN, "authority")]))
        .public_key(KEY.public_key())
        .serial_number(5)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=400))
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def common_name(value: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> list[NameAttribute]:
    return [NameAttribute(CN, value, _type=kind)]


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ([NameAttribute(C, "US"), NameAttribute(O, "Acme"), *common_name("client")], "CN=client,O=Acme,C=US"),
        (common_name('a, b+c="d"<e>;f\\g#h'), r"CN=a\, b\+c\=\"d\"\<e\>\;f\\g\#h"),
        (common_name(" lead and trail "), r"CN=\ lead and trail\ "),
        (common_name("zoë 日本"), "CN=zoë 日本"),
        (
            [NameAttribute(NameOID.EMAIL_ADDRESS, "a@b.c"), *common_name("x")],
            "CN=x,1.2.840.113549.1.9.1=#16056140622e63",
        ),
        (
            [
                NameAttribute(NameOID.DOMAIN_COMPONENT, "com"),
                NameAttribute(NameOID.DOMAIN_COMPONENT, "acme"),
                NameAttribute(NameOID.USER_ID, "me"),
            ],
            "UID=me,DC=acme,DC=com",
        ),
        ([NameAttribute(NameOID.SERIAL_NUMBER, "12")], "2.5.4.5=#13023132"),
        (common_name("num", _ASN1Type.NumericString), "CN=#12036e756d"),
        (common_name("ia5", _ASN1Type.IA5String), "CN=ia5"),
        ([], ""),
    ],
)
def test_11_4_a_subject_is_written_as_java_writes_it(attributes: list[NameAttribute], text: str) -> None:
    assert subject_name(certificate(Name(attributes))) == text


def test_11_4_attributes_of_one_relative_name_keep_their_order() -> None:
    both = RelativeDistinguishedName([NameAttribute(CN, "m"), NameAttribute(NameOID.USER_ID, "u")])
    name = Name([both, RelativeDistinguishedName([NameAttribute(O, "o")])])
    assert subject_name(certificate(name)) == "O=o,CN=m+UID=u"


@given(st.binary(max_size=60))
def test_any_bytes_are_a_certificate_or_a_decode_error(data: bytes) -> None:
    try:
        subject_name(data)
    except DecodeError:
        pass


WHOLE = certificate(Name(common_name("client")))


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_damaged_certificate_gives_a_name_or_a_decode_error(position: int, byte: int) -> None:
    try:
        subject_name(WHOLE[:position] + bytes([byte]) + WHOLE[position + 1 :])
        subject_name(WHOLE[:position])
    except DecodeError:
        pass
