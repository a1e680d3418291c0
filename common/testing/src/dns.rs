//! A DNS server on loopback, UDP and TCP at one port, for what a real one will not do on demand: cut answers off, speak
//! rubbish, answer too late or not at all. Messages are read and written by hickory-proto.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// As it should.
    #[default]
    Proper,
    /// It fails (SERVFAIL).
    Fails,
    /// It says nothing.
    Silent,
    /// It answers with bytes that are no message.
    Rubbish,
    /// UDP answers are cut off in the middle; TCP gives them whole.
    CutOff,
    /// UDP answers are cut off, and over TCP nothing is said.
    CutOffOnly,
}

#[derive(Debug, Default)]
struct Zone {
    records: BTreeMap<(String, RecordType), Vec<RData>>,
    /// Names that fail alone.
    failing: Vec<String>,
    ttl: u32,
    manner: Manner,
    questions: Vec<String>,
}

/// The server; gone when it is dropped.
#[derive(Debug)]
pub struct DnsServer {
    zone: Arc<Mutex<Zone>>,
    address: SocketAddr,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl DnsServer {
    /// A server that knows no name.
    pub async fn start() -> Self {
        let zone: Arc<Mutex<Zone>> = Arc::new(Mutex::new(Zone { ttl: 60, ..Zone::default() }));
        loop {
            let tcp = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = tcp.local_addr().unwrap();
            let Ok(udp) = UdpSocket::bind(address).await else { continue }; // another one has this port
            let tasks = [
                AbortOnDropHandle::new(tokio::spawn(serve_udp(udp, zone.clone()))),
                AbortOnDropHandle::new(tokio::spawn(serve_tcp(tcp, zone.clone()))),
            ];
            return Self { zone, address, _tasks: tasks };
        }
    }

    /// Where it listens, `address:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The addresses of a name, of both families; none: there is no such name.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        let v4 = addresses.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(RData::A(A(*ip))) } else { None });
        let v6 =
            addresses.iter().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(RData::AAAA(AAAA(*ip))) } else { None });
        let (v4, v6) = (v4.collect(), v6.collect());
        let mut zone = self.zone.lock().unwrap();
        zone.records.insert((name.to_owned(), RecordType::A), v4);
        zone.records.insert((name.to_owned(), RecordType::AAAA), v6);
    }

    /// The SRV records of a name: priority, weight, port, target.
    pub fn set_services(&self, name: &str, services: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, target): &(u16, u16, u16, &str)| {
            RData::SRV(SRV::new(*priority, *weight, *port, Name::from_utf8(target).unwrap()))
        };
        let records = services.iter().map(record).collect();
        self.zone.lock().unwrap().records.insert((name.to_owned(), RecordType::SRV), records);
    }

    /// The TTL of every record, seconds.
    pub fn set_ttl(&self, ttl: u32) {
        self.zone.lock().unwrap().ttl = ttl;
    }

    /// From now on questions for these names fail, and no others.
    pub fn fail_for(&self, names: &[&str]) {
        self.zone.lock().unwrap().failing = names.iter().map(|n| (*n).to_owned()).collect();
    }

    /// From now on it behaves like this.
    pub fn behave(&self, manner: Manner) {
        self.zone.lock().unwrap().manner = manner;
    }

    /// Every question so far, `TYPE name`.
    pub fn questions(&self) -> Vec<String> {
        self.zone.lock().unwrap().questions.clone()
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let answer = answer(&buffer[..length], &zone, false);
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, peer).await; // it may have gone
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve_stream(stream, zone.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_stream(mut stream: TcpStream, zone: Arc<Mutex<Zone>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(answer) = answer(&question, &zone, true) else { continue };
        let mut framed = u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(answer);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

fn answer(question: &[u8], zone: &Mutex<Zone>, whole: bool) -> Option<Vec<u8>> {
    let mut zone = zone.lock().unwrap();
    let asked = Message::from_vec(question).unwrap();
    let query = asked.queries.first().unwrap().clone();
    let name = query.name().to_utf8().trim_end_matches('.').to_ascii_lowercase();
    zone.questions.push(format!("{} {name}", query.query_type()));
    let mut answer = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match zone.manner {
        Manner::Silent => return None,
        Manner::CutOffOnly if whole => return None,
        Manner::Rubbish => return Some(question.iter().rev().copied().chain([0xff; 40]).collect()),
        _ => {}
    }
    if zone.manner == Manner::Fails || zone.failing.contains(&name) {
        answer.metadata.response_code = ResponseCode::ServFail;
        return answer.to_vec().ok();
    }
    let records = zone.records.get(&(name.clone(), query.query_type())).cloned().unwrap_or_default();
    let known = zone.records.iter().any(|((known, _), records)| *known == name && !records.is_empty());
    if !known {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    let cut = !whole && matches!(zone.manner, Manner::CutOff | Manner::CutOffOnly);
    let kept = if cut { records.len() / 2 } else { records.len() };
    for data in records.into_iter().take(kept) {
        answer.add_answer(Record::from_rdata(query.name().clone(), zone.ttl, data));
    }
    answer.metadata.truncation = cut;
    answer.to_vec().ok()
}
