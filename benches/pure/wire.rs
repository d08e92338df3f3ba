//! What is read of the wire: the first packet, a login's answer, and the headers of everything that follows.

use std::hint::black_box;
use std::ops::ControlFlow;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput};
use pgsplit::pg::first_packet::{Asked, parse};
use pgsplit::pg::framing::Framing;
use pgsplit::pg::message::Scanner;

/// As much as the relay reads at once.
const PIECE: usize = 64 * 1024;

pub(crate) fn bench(criterion: &mut Criterion) {
    first_packet(criterion);
    login(criterion);
    framing(criterion);
}

fn first_packet(criterion: &mut Criterion) {
    let packet = startup();
    let mut group = criterion.benchmark_group("first packet");
    group.throughput(Throughput::Bytes(packet.len() as u64));
    group.bench_function("startup", |bencher| {
        bencher.iter_batched_ref(
            || (BytesMut::from(&packet[..]), Asked::default()),
            |(received, asked)| parse(received, asked).expect("a startup packet"),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn login(criterion: &mut Criterion) {
    let answer = login_answer();
    let mut group = criterion.benchmark_group("login");
    group.throughput(Throughput::Bytes(answer.len() as u64));
    group.bench_function("answer", |bencher| {
        bencher.iter(|| {
            let mut messages = 0;
            let mut scanner = Scanner::default();
            let scanned = scanner.scan(black_box(&answer), |seen| {
                black_box(seen);
                messages += 1;
                ControlFlow::Continue(())
            });
            scanned.expect("messages");
            messages
        });
    });
    group.finish();
}

fn framing(criterion: &mut Criterion) {
    let row = small_row();
    let rows = PIECE / row.len();
    let cases = [
        ("answer to a prepared select", prepared_answer(), 4),
        ("64 KiB of small rows", row.repeat(rows), rows),
        ("one row of 64 KiB", message(b'D', &vec![b'x'; PIECE - 5]), 1),
    ];
    let mut group = criterion.benchmark_group("framing");
    for (name, bytes, messages) in cases {
        // The bodies are not looked at, so bytes per second would say nothing.
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(name, |bencher| {
            let mut framing = Framing::default();
            bencher.iter(|| {
                framing.ask();
                framing.follow(black_box(&bytes));
                framing.is_idle()
            });
        });
    }
    group.finish();
}

/// What psql sends first.
fn startup() -> Vec<u8> {
    let body = b"user\0app\0database\0shop\0application_name\0psql\0client_encoding\0UTF8\0\0";
    let length = u32::try_from(8 + body.len()).expect("short");
    [&length.to_be_bytes()[..], &0x0003_0000_u32.to_be_bytes(), body].concat()
}

/// What a server says once it has let somebody in.
fn login_answer() -> Vec<u8> {
    let parameters = [
        ("in_hot_standby", "off"),
        ("integer_datetimes", "on"),
        ("TimeZone", "Etc/UTC"),
        ("IntervalStyle", "postgres"),
        ("is_superuser", "off"),
        ("application_name", "psql"),
        ("default_transaction_read_only", "off"),
        ("session_authorization", "app"),
        ("DateStyle", "ISO, MDY"),
        ("standard_conforming_strings", "on"),
        ("client_encoding", "UTF8"),
        ("server_version", "17.4"),
        ("server_encoding", "UTF8"),
    ];
    let mut answer = message(b'R', &[0; 4]);
    for (name, value) in parameters {
        answer.extend(message(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    answer.extend(message(b'K', &[7; 8]));
    answer.extend(message(b'Z', b"I"));
    answer
}

/// What a server says to `pgbench -S -M prepared`: bound, a row of one number, done, ready.
fn prepared_answer() -> Vec<u8> {
    [
        message(b'2', b""),
        message(b'D', b"\0\x01\0\0\0\x010"),
        message(b'C', b"SELECT 1\0"),
        message(b'Z', b"I"),
    ]
    .concat()
}

fn small_row() -> Vec<u8> {
    message(b'D', b"\0\x01\0\0\0\x1atwenty-six letters of text")
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + body.len()).expect("short");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}
