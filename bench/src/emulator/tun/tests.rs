//! The tunnel between real namespaces; only root can run it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

use super::*;

const LINK: Link = Link::new(10_000_000, Duration::from_millis(20));

fn tunnel(link: Link) -> Option<Tunnel> {
    if !allowed() {
        eprintln!("skipped: only root can make network namespaces and TUN devices");
        return None;
    }
    Some(Tunnel::start(link, 1).unwrap())
}

#[test]
fn tcp_crosses_with_its_delay_and_every_byte_of_a_packet_counts() {
    let Some(tunnel) = tunnel(LINK) else { return };
    let listener = tunnel.far().enter(|| TcpListener::bind((FAR_ADDRESS, 7000)).unwrap()).unwrap();
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).unwrap();
        stream.write_all(&text).unwrap();
    });
    let started = Instant::now();
    let connect = || TcpStream::connect((FAR_ADDRESS, 7000)).unwrap();
    let mut stream = tunnel.near().enter(connect).unwrap();
    let sockets = tunnel.near().enter(|| Command::new("ss").arg("-tin").output().unwrap()).unwrap();
    let sockets = String::from_utf8_lossy(&sockets.stdout).into_owned();
    assert!(sockets.contains("cubic"), "{sockets}");
    stream.write_all(b"hello").unwrap();
    let mut text = [0; 5];
    stream.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
    // A round trip for the connection and one for the text.
    assert!(started.elapsed() >= Duration::from_millis(79), "{:?}", started.elapsed());
    let stats = tunnel.wire().stats();
    assert!(stats.up.delivered.bytes >= 60 + 52 + 57, "{stats:?}");
    echo.join().unwrap();
}

#[test]
fn a_new_address_reaches_the_far_end_and_a_cut_stops_everything() {
    let Some(mut tunnel) = tunnel(LINK) else { return };
    let far = tunnel.far().enter(|| UdpSocket::bind((FAR_ADDRESS, 7001)).unwrap()).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let near = tunnel.near().enter(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let ask = || {
        near.send_to(b"hello", (FAR_ADDRESS, 7001)).unwrap();
        let mut text = [0; 9];
        let (length, from) = far.recv_from(&mut text).unwrap();
        assert_eq!(&text[..length], b"hello");
        from.ip()
    };
    assert_eq!(ask(), NEAR_ADDRESSES[0]);
    assert_eq!(tunnel.wire().stats().up.delivered.bytes, 5 + 28);
    tunnel.readdress().unwrap();
    assert_eq!(ask(), NEAR_ADDRESSES[1]);
    tunnel.wire().cut();
    near.send_to(b"cut off", (FAR_ADDRESS, 7001)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while tunnel.wire().stats().up.cut.packets == 0 {
        assert!(Instant::now() < deadline, "nothing is cut");
        thread::sleep(Duration::from_millis(5));
    }
    tunnel.wire().restore();
    assert_eq!(ask(), NEAR_ADDRESSES[1]);
}
