"""XMP packets (ISO 16684-1): what travels with a picture, with this program's own facts added to it."""

import re
from collections.abc import Mapping
from xml.sax.saxutils import quoteattr, unescape

_NAMESPACE = "urn:hdrcli:provenance:"
_PREFIX = "hdr:"  # of the keys in Metadata.extra that say how a picture was made
_END = b"</rdf:RDF>"
_EMPTY = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
_OWN = re.compile(rb"<rdf:Description\s[^>]*" + re.escape(_NAMESPACE.encode()) + rb"[^>]*/>")
_ATTRIBUTE = re.compile(r"\shdr:([\w.-]+)=(?:\"([^\"]*)\"|'([^']*)')")
_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>))[1-8]")


def for_output(packet: bytes, extra: Mapping[str, str]) -> bytes:
    """The packet for an upright picture of this program, with what `extra` says of its making; empty without either."""
    facts = {key.removeprefix(_PREFIX): value for key, value in extra.items() if key.startswith(_PREFIX)}
    kept = _ORIENTATION.sub(rb"\g<1>1", _OWN.sub(b"", packet))
    return described(kept, _NAMESPACE, "hdr", facts) if facts else kept


def described(packet: bytes, namespace: str, prefix: str, facts: Mapping[str, str], inside: str = "") -> bytes:
    """The packet with one more description: `facts` as attributes, and elements `inside`.

    A packet that does not end as it should is replaced by a new one.
    """
    attributes = "".join(f" {prefix}:{key}={quoteattr(value)}" for key, value in facts.items())
    start = f'<rdf:Description rdf:about="" xmlns:{prefix}="{namespace}"{attributes}'
    description = f"{start}>{inside}</rdf:Description>" if inside else f"{start}/>"
    before, end, after = (packet if _END in packet else _EMPTY).rpartition(_END)
    return before + description.encode() + end + after


def provenance(packet: bytes) -> dict[str, str]:
    """What an earlier run of this program said in the packet."""
    own = _OWN.search(packet)
    found = _ATTRIBUTE.findall(own[0].decode("utf-8", "replace")) if own else []
    entities = {"&quot;": '"', "&#10;": "\n", "&#13;": "\r", "&#9;": "\t"}
    return {_PREFIX + key: unescape(double or single, entities) for key, double, single in found}
