"""What all rows of the store have in common, and how one that is over is put away until it ends."""

from __future__ import annotations

import struct
import zlib
from datetime import datetime
from typing import Self

from pydantic import ConfigDict

from streamapp.domain.vocabulary import Frozen

_AWAY = b"\x01"
"""How a row begins that was put away; every other one is JSON, or an account's."""
_SINCE = struct.Struct(">q")
OVER = b'{"open":false,'
"""How the row of an order or a position begins that nobody must look at again."""

_WORDS = (
    b'{"name":"position.close","request":{"request_id":"","issued_by":"","values":{}},"state":"done","order_ids":[],'
    b'"made":1,"targets":{},"at":"2026-01-01T00:00:00.000000Z"}'
    b'{"account":"","position_id":1,"rev":2,"newest":[{"fact_id":"1","number":1,"deal":{"filled":{"deal":1,"ticket":1,'
    b'"position_id":1,"symbol":"EURUSD","side":"sell","entry":"out","reason":"sl","volume":"0.1","price":"1.08610",'
    b'"commission":"-0.35","swap":"0","fee":"0","profit":"10","currency":"USD","magic":"1","comment":"","time":"'
    b'2026-01-01T00:00:00.000000Z"},"revision":0,"owner":{"order_id":"","signal_id":"","strategy":""}}}]}'
    b'{"stream_seq":1,"verdict":{"decision":"refused","reason":"guard","detail":""},"fingerprint":"",'
    b'"parameters_hash":"","order_id":"","order_ids":[],"decided_at":"2026-01-01T00:00:00.000000Z"}'
    b'{"open":false,"order_id":"","account":"","state":{"facts":{":created":"",":SubmitClaimed:1":"",'
    b'":SubmitStarted:1":"",":SubmitReturned:1":"",":SubmitRefused:1":"",":BrokerRejected:1":"",":BrokerAccepted:1":"",'
    b'":BrokerCancelled:1":"",":OutcomeUnknown:1:":"",":CancelRequested:":"",":deal:1":""},"created":{"parameters":{'
    b'"symbol":"EURUSD","side":"buy","order_type":"market","volume":"0.1","price":"1.08510","stop_loss":"1.07",'
    b'"take_profit":"1.1","time_in_force":"gtc","fill_policy":"ioc"},"parameters_hash":"","intent":"close",'
    b'"position_id":1,"signal_id":"","strategy":"","expected_price":"1.08510","max_slippage_points":10,"signal_at":"'
    b'2026-01-01T00:00:00.000000Z","not_after":"2026-01-01T00:00:00.000000Z","executor":"streamapp","metadata":{}},'
    b'"created_at":"2026-01-01T00:00:00.000000Z","attempts":{"1":{"claimed_at":"2026-01-01T00:00:00.000000Z","started":'
    b'{"attempt":1,"bid":"1.08500","ask":"1.08510","quote_at":"2026-01-01T00:00:00.000000Z","point":"0.00001",'
    b'"contract_size":"100000","account_rate":"1","currency":"USD","sent_at":"2026-01-01T00:00:00.000000Z"},"returned":'
    b'true,"refused":{"attempt":1,"reason":"","message":""},"rejected":{"attempt":1,"retcode":10019,"retcode_name":"",'
    b'"message":""}}},"tickets":{"1":{"accepted":true,"cancelled":"user"}},"deals":{"1":{"filled":{"deal":1,"ticket":1,'
    b'"position_id":1,"symbol":"EURUSD","side":"buy","entry":"in","reason":"expert","volume":"0.1","price":"1.08510",'
    b'"commission":"-0.35","currency":"USD","magic":"1","comment":"","time":"2026-01-01T00:00:00.000000Z"},"revision":0'
    b'}},"latest_at":"2026-01-01T00:00:00.000000Z"},"claim_epoch":"","journal_epoch":""}'
)
"""What rows have in common, for compression. Rows in changelogs rest on every byte of it: it never changes; another one
would need a beginning of its own beside ``_AWAY``."""


class Row(Frozen):
    """A row as it stands in the changelog, as JSON without the fields that have their default.

    A field that is not known is an error: an older worker would read a newer one's row without it, and write it back
    without it. So the worker stops instead; rows are written by the newest version only.
    """

    model_config = ConfigDict(extra="forbid")

    @property
    def over_since(self) -> datetime | None:
        """Since when nothing is expected to change it, None while something is."""
        return None

    def encode(self) -> bytes:
        """Return the row as it is stored."""
        return self.model_dump_json(exclude_defaults=True).encode()

    def put_away(self, since: datetime) -> bytes:
        """Return the row as it is stored once it is over: all that it says, in a quarter of the bytes."""
        packing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=_WORDS)
        return _AWAY + _SINCE.pack(int(since.timestamp())) + packing.compress(self.encode()) + packing.flush()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the row in ``value``; raises pydantic's ValidationError for what another version wrote."""
        if is_put_away(value):
            packed = value[len(_AWAY) + _SINCE.size :]
            return cls.decode(zlib.decompressobj(-zlib.MAX_WBITS, zdict=_WORDS).decompress(packed))
        return cls.model_validate_json(value)


def is_passed_over(value: bytes) -> bool:
    """Return whether a recovery passes a stored order or position over, without decoding it: it is over."""
    return value.startswith(OVER) or is_put_away(value)


def is_put_away(value: bytes) -> bool:
    """Return whether a stored row is over and was put away; it is told without decoding it."""
    return value.startswith(_AWAY)


def put_away_since(value: bytes) -> float:
    """Return since when a row that was put away is over, in seconds of Unix time; likewise without decoding it."""
    (since,) = _SINCE.unpack_from(value, len(_AWAY))
    return float(since)
