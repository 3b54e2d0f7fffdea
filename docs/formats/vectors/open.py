"""Opens segment files with nothing but what docs/formats says, and writes what they hold as an MP4.

    open.py --key-file DIR.key --keyring DIR/keyring.a --out clip.mp4 [--stream UUID] SEGMENT.vseg ...
    open.py --check vectors.txt

Needs the package `cryptography`. H.264, H.265 and AAC tracks of the first config are written; nothing is re-encoded.
Checksums are not looked at: every byte that is used is authenticated.
"""
import argparse
import struct
import uuid

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

BLOCK, CHUNK = 4096, 65536
CONFIG_ID, FRAGMENT, PART, CONFIG, CONTROL = b"vidar config id 1", 1, 2, 3, 4


# --- keys: docs/formats/keyring.md
def hkdf(key, info):
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(key)


def mac(key, data):
    h = hmac.HMAC(key, hashes.SHA256())
    h.update(data)
    return h.finalize()


def unwrap(outer, salt, sealed, context):
    return AESGCM(hkdf(outer, b"vidar wrap 1" + salt + context)).decrypt(bytes(12), sealed, context)


def key_file(text):
    magic, key, _crc = text.split()
    assert magic == "vidar-kek-1"
    return bytes.fromhex(key)


def keyring(raw, kek):
    """{(purpose, stream, version): key}"""
    assert raw[:8] == b"VIDARKEY" and raw[8:10] == b"\0\1" and raw[20:24] == bytes(4), "no keyring that opens with a key file"
    store = raw[32:48]
    secret = unwrap(kek, raw[48:80], raw[80:128], b"secret" + store)
    assert mac(hkdf(secret, b"vidar keyring mac 1"), raw[:-36]) == raw[-36:-4], "the keyring was altered"
    keys = {}
    for i in range(struct.unpack(">I", raw[128:132])[0]):
        e = raw[132 + 104 * i : 236 + 104 * i]
        key = unwrap(secret, e[24:56], e[56:104], e[:24] + store)
        keys[e[0], e[8:24], struct.unpack(">I", e[4:8])[0]] = key
    return keys


# --- records: docs/formats/record.md
class Record:
    """Header fields, and facts, table and media in plain."""

    def __init__(self, raw, outer):
        self.kind, self.stream, self.number = raw[6], raw[12:28], raw[28:48]
        self.version = struct.unpack(">I", raw[8:12])[0]
        self.run, self.config = raw[80:96], raw[128:144]
        self.ordinal = struct.unpack(">Q", raw[104:112])[0]
        self.part = struct.unpack(">H", raw[126:128])[0]
        facts_len, table_len, media_len = struct.unpack(">IIQ", raw[144:160])
        gcm = AESGCM(hkdf(outer(self), b"vidar record 1" + raw[48:80] + self.stream + self.number))
        at, aad = 168, raw[:164]

        def section(label, index, last, length):
            nonlocal at
            nonce = bytes([label]) + bytes(6) + struct.pack(">IB", index, last)
            sealed, at = raw[at : at + length + 16], at + length + 16
            return gcm.decrypt(nonce, sealed, aad)

        self.facts, self.table, self.media = section(1, 0, 1, facts_len), section(2, 0, 1, table_len), b""
        for index in range((media_len + CHUNK - 1) // CHUNK):
            length = min(CHUNK, media_len - index * CHUNK)
            self.media += section(3, index, int(index * CHUNK + length == media_len), length)


def record_len(header):
    facts_len, table_len, media_len = struct.unpack(">IIQ", header[144:160])
    return 168 + facts_len + table_len + 32 + media_len + 16 * ((media_len + CHUNK - 1) // CHUNK)


def records(raw):
    """Bytes of each record: docs/formats/segment-file.md."""
    assert raw[:8] == b"VIDARSEG"
    base = BLOCK
    while raw[base : base + 4] == b"VBAT":
        at, end = base + 64, base + 64 + struct.unpack(">I", raw[base + 16 : base + 20])[0]
        while at < end:
            at = (at + 7) // 8 * 8
            if raw[at : at + 4] == b"VPAD":
                at += struct.unpack(">I", raw[at + 4 : at + 8])[0]
            elif raw[at : at + 4] == b"VREC":
                length = record_len(raw[at : at + 168])
                yield raw[at : at + length]
                at += length
            else:
                break
        base = (end + BLOCK - 1) // BLOCK * BLOCK


# --- what stands in them: docs/formats/config.md, record.md (envelope), table.md
class Reader:
    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, n):
        self.at += n
        assert self.at <= len(self.raw)
        return self.raw[self.at - n : self.at]

    def u8(self):
        return self.take(1)[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def signed(self):
        v = self.varint()
        return v >> 1 ^ -(v & 1)

    def bytes(self):
        return self.take(self.varint())

    def option(self, read):
        return read() if self.u8() else None

    def column(self, count, read):
        values = []
        while len(values) < count:
            run, value = self.varint(), read()
            values += [value] * run
        return values


def config_tracks(plain):
    r = Reader(plain)
    assert r.u8() == 1
    tracks = []
    for _ in range(r.varint()):
        t = {"source": r.varint(), "kind": r.u8(), "codec": r.u8()}
        if t["codec"] == 11:
            r.take(2)
        r.bytes()
        t["private"], t["timescale"] = r.bytes(), struct.unpack(">I", r.take(4))[0]
        t["framing"], _ = r.u8(), r.u8()
        t["video"] = r.option(lambda: (r.varint(), r.varint()))
        t["audio"] = r.option(lambda: (r.varint(), r.varint(), r.varint()))
        r.option(r.varint)
        r.signed(), r.signed(), r.varint(), r.varint(), r.bytes(), r.bytes()
        tracks.append(t)
    return tracks


def pieces(envelope):
    r = Reader(envelope)
    assert r.u8() == 1
    return [(r.varint(), r.varint(), r.bytes()) for _ in range(r.varint())]


def samples(table, media):
    """(track, decode time, composition offset, duration, is sync, bytes) of each sample of a piece."""
    r, at = Reader(table), 0
    assert r.u8() == 1
    for _ in range(r.varint()):
        track, count = r.u8(), r.varint()
        if count == 0:
            continue
        decode = [r.signed()]
        for delta in r.column(count - 1, r.varint):
            decode.append(decode[-1] + delta)
        offset, duration = r.column(count, r.signed), r.column(count, r.varint)
        flags, size = r.column(count, r.varint), r.column(count, r.varint)
        r.column(count, r.signed)
        for _ in range(sum(r.column(count, r.varint))):
            r.varint(), r.varint()
        for i in range(count):
            yield track, decode[i], offset[i], duration[i], flags[i] & 3 == 1, media[at : at + size[i]]
            at += size[i]


# --- MP4: ISO/IEC 14496-12, -14, -15
def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def full(kind, *parts, flags=0):
    return box(kind, struct.pack(">I", flags), *parts)


def u32(*values):
    return struct.pack(f">{len(values)}I", *values)


def runs(values):
    out = []
    for value in values:
        if out and out[-1][1] == value:
            out[-1][0] += 1
        else:
            out.append([1, value])
    return out


def sample_entry(t):
    if t["codec"] in (1, 2):
        name, inner = (b"avc1", b"avcC") if t["codec"] == 1 else (b"hvc1", b"hvcC")
        size = struct.pack(">HH", *t["video"])
        head = bytes(6) + b"\0\1" + bytes(16) + size + u32(0x480000, 0x480000, 0) + b"\0\1" + bytes(32) + b"\0\x18\xff\xff"
        return box(name, head, box(inner, t["private"]))
    rate, channels, _ = t["audio"]
    head = bytes(6) + b"\0\1" + bytes(8) + struct.pack(">HHI", channels, 16, 0) + u32(min(rate, 65535) << 16)
    tag = lambda number, body: bytes([number, len(body)]) + body
    decoder = tag(4, bytes([0x40, 0x15]) + bytes(11) + tag(5, t["private"]))
    return box(b"mp4a", head, full(b"esds", tag(3, b"\0\1\0" + decoder + tag(6, b"\2"))))


def lengths(nals):
    """Start codes become lengths of 4 bytes."""
    parts = nals.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]
    return b"".join(u32(len(p)) + p for p in parts)


def trak(index, t, all_samples, offsets, start):
    unity = u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    decode = [s[1] for s in all_samples]
    durations = [b - a for a, b in zip(decode, decode[1:])] + [all_samples[-1][3]]
    total, video = sum(durations), t["kind"] == 0
    movie = total * 1000 // t["timescale"]
    delay = max(0, decode[0] * 1000 // t["timescale"] - start)
    edits = [(delay, 0xFFFFFFFF)] if delay else []
    edits.append((movie, max(0, all_samples[0][2])))
    tables = [full(b"stsd", u32(1), sample_entry(t))]
    tables.append(full(b"stts", u32(len(r := runs(durations))), b"".join(u32(*x) for x in r)))
    ctts = runs([s[2] for s in all_samples])
    tables.append(box(b"ctts", b"\1\0\0\0", u32(len(ctts)), b"".join(struct.pack(">Ii", *x) for x in ctts)))
    syncs = [i + 1 for i, s in enumerate(all_samples) if s[4]]
    if video:
        tables.append(full(b"stss", u32(len(syncs), *syncs)))
    tables.append(full(b"stsc", u32(1, 1, 1, 1)))
    tables.append(full(b"stsz", u32(0, len(all_samples), *(len(s[5]) for s in all_samples))))
    tables.append(full(b"co64", u32(len(offsets)), struct.pack(f">{len(offsets)}Q", *offsets)))
    width, height = t["video"] or (0, 0)
    media_header = full(b"vmhd", bytes(8), flags=1) if video else full(b"smhd", bytes(4))
    place = box(b"dinf", full(b"dref", u32(1), full(b"url ", flags=1)))
    return box(
        b"trak",
        full(b"tkhd", u32(0, 0, index, 0, movie), bytes(12), bytes(4) if video else b"\1\0\0\0", unity, u32(width << 16, height << 16), flags=3),
        box(b"edts", full(b"elst", u32(len(edits)), b"".join(u32(d, m, 0x10000) for d, m in edits))),
        box(
            b"mdia",
            full(b"mdhd", u32(0, 0, t["timescale"], total, 0x55C40000)),
            full(b"hdlr", u32(0), b"vide" if video else b"soun", bytes(13)),
            box(b"minf", media_header, place, box(b"stbl", *tables)),
        ),
    )


def write_mp4(path, tracks, by_track):
    kept = [i for i, t in enumerate(tracks) if t["codec"] in (1, 2, 6) and by_track.get(i)]
    assert kept, "no track that this script can write"
    ftyp, mdat, offsets = box(b"ftyp", b"isom", u32(0), b"isom"), bytearray(), {}
    for i in kept:
        if tracks[i]["framing"] == 255:
            by_track[i] = [s[:5] + (lengths(s[5]),) for s in by_track[i]]
        offsets[i] = []
        for s in by_track[i]:
            offsets[i].append(len(ftyp) + 16 + len(mdat))
            mdat += s[5]
    start = min(by_track[i][0][1] * 1000 // tracks[i]["timescale"] for i in kept)
    traks = [trak(n + 1, tracks[i], by_track[i], offsets[i], start) for n, i in enumerate(kept)]
    unity = u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    mvhd = full(b"mvhd", u32(0, 0, 1000, 0, 0x10000), b"\1\0" + bytes(10), unity, bytes(24), u32(len(kept) + 1))
    with open(path, "wb") as out:
        out.write(ftyp + u32(1) + b"mdat" + struct.pack(">Q", len(mdat) + 16) + mdat + box(b"moov", mvhd, *traks))


def open_segments(args):
    keys = keyring(open(args.keyring, "rb").read(), key_file(open(args.key_file).read()))
    wanted = uuid.UUID(args.stream).bytes if args.stream else None

    def outer(r):
        return keys[(2, bytes(16), 1) if r.kind == CONTROL else (1, r.stream, r.version)]

    configs, fragments, parts = {}, {}, {}
    files = [open(path, "rb").read() for path in args.segments]
    for raw in sorted(files, key=lambda raw: raw[56:64]):
        for record in records(raw):
            if record[6] != CONTROL and (1, record[12:28], struct.unpack(">I", record[8:12])[0]) not in keys:
                continue  # its stream was deleted
            r = Record(record, outer)
            if r.kind == CONFIG:
                first = keys[min(key for key in keys if key[:2] == (1, r.stream))]
                assert mac(hkdf(first, CONFIG_ID + r.stream), r.table)[:16] == r.config, "a config under another's id"
                configs[r.stream, r.config] = config_tracks(r.table)
            elif r.kind == PART:
                parts[r.stream, r.number, r.part] = r
            elif r.kind == FRAGMENT and wanted in (None, r.stream):
                fragments[r.stream, r.number] = r
    assert fragments, "no fragment"
    one = min(fragments)[0]
    order = sorted((r for (stream, _), r in fragments.items() if stream == one), key=lambda r: r.number)
    run, config = order[0].run, order[0].config
    by_track = {}
    for r in order:
        if (r.run, r.config) != (run, config):
            continue
        for part, _, table in pieces(r.table):
            media = (r if part == 0 else parts[r.stream, r.number, part - 1]).media
            for sample in samples(table, media):
                by_track.setdefault(sample[0], []).append(sample)
    write_mp4(args.out, configs[one, config], by_track)
    print(f"stream {uuid.UUID(bytes=one)}: {len(order)} fragments, {sum(map(len, by_track.values()))} samples")


def check(path):
    v = {}
    for line in open(path):
        if line.strip() and not line.startswith("#"):
            name, value = line.split()
            v[name] = bytes.fromhex(value)
    keys = keyring(v["keyring"], v["kek"])
    assert keys[1, v["stream"], 1] == v["stream_key"] and keys[2, bytes(16), 1] == v["log_key"]
    assert len(v["record"]) == record_len(v["record"])
    r = Record(v["record"], lambda r: keys[1, r.stream, r.version])
    assert (r.facts, r.table, r.media) == (v["facts"], v["table"], v["media"])
    assert mac(hkdf(v["stream_key"], CONFIG_ID + v["stream"]), v["table"])[:16] == v["config_id"]
    print("all vectors open")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("--key-file", "--keyring", "--out", "--stream", "--check"):
        parser.add_argument(flag)
    parser.add_argument("segments", nargs="*")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
    else:
        open_segments(arguments)
