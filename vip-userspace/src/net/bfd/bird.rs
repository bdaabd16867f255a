//! Authenticated sessions of ours with BIRD's.

use std::fs;
use std::io::{self, Write as _};
use std::num::{NonZeroU8, NonZeroU32};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vip_common::wire::bfd::{ControlPacket, MAX_LENGTH, TTL};
use vip_node::bfd::{Action, Auth, Key, Params, Refused, Session};

use super::BfdSocket;
use crate::clock::now;
use crate::net::testing::{self, A, B, Side};

/// Longer than both need to come up, at a packet a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// BIRD on the other side, which dies with this.
struct Bird {
    process: Child,
    folder: tempfile::TempDir,
}

impl Bird {
    /// Starts it in the namespace of this thread; `None` if it is not installed.
    fn start(password: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("make a folder");
        let config = format!(
            "log \"{log}\" all;\n\
             router id {B};\n\
             protocol device {{}}\n\
             protocol bfd {{\n\
             \tinterface \"b0\" {{\n\
             \t\tinterval 50 ms; multiplier 3;\n\
             \t\tauthentication meticulous keyed sha1;\n\
             \t\tpassword \"{password}\" {{ id 3; }};\n\
             \t}};\n\
             \tneighbor {A} dev \"b0\";\n\
             }}\n",
            log = folder.path().join("log").display(),
        );
        let file = folder.path().join("conf");
        fs::write(&file, config).expect("write BIRD's configuration");
        let mut command = Command::new("bird");
        command.arg("-f").arg("-c").arg(file);
        command.arg("-s").arg(folder.path().join("ctl"));
        match command.stdin(Stdio::null()).spawn() {
            Ok(process) => Some(Self { process, folder }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("start bird: {error}"),
        }
    }

    /// State of its session, as it tells it.
    fn state(&self) -> Option<String> {
        let text = Self::ask(&self.folder.path().join("ctl"));
        let own = A.to_string();
        let line = text.lines().find(|line| line.starts_with(&own))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    }

    fn ask(socket: &Path) -> String {
        let mut command = Command::new("birdc");
        command
            .arg("-s")
            .arg(socket)
            .args(["show", "bfd", "sessions"]);
        let output = command.output().expect("start birdc");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// Our session, its socket, and what became of it.
struct Ours {
    session: Session,
    socket: BfdSocket,
    /// Its packets are lost.
    silent: bool,
    ups: usize,
    downs: usize,
    refused: Vec<Refused>,
}

impl Ours {
    fn new(socket: BfdSocket, password: &str) -> Self {
        let params = Params {
            detect_mult: NonZeroU8::new(3).unwrap(),
            interval: Duration::from_millis(50),
            auth: Some(Auth {
                current: Key::new(3, password.as_bytes()),
                other: None,
            }),
        };
        let mut ours = Self {
            session: Session::new(params, NonZeroU32::new(7).unwrap(), 0x5eed_0000_0000_0001),
            socket,
            silent: false,
            ups: 0,
            downs: 0,
            refused: vec![],
        };
        let mut out = vec![];
        ours.session.set_fresh(now(), true, &mut out);
        ours.session.on_start(now(), &mut out);
        ours.carry_out(out);
        ours
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(packet) => {
                    if !self.silent {
                        let mut bytes = [0; MAX_LENGTH];
                        self.socket
                            .send(B.into(), packet.emit(&mut bytes))
                            .expect("it can be sent");
                    }
                }
                Action::Up => self.ups += 1,
                Action::Down(_) => self.downs += 1,
            }
        }
    }

    /// Drives the session for some time, or until something is as wanted. Returns whether it was.
    fn run(&mut self, limit: Duration, mut done: impl FnMut(&Session) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut buffer = [0; 128];
        while Instant::now() < end {
            let mut out = vec![];
            while let Some(received) = self.socket.receive(&mut buffer).expect("it can be read") {
                assert_eq!((received.source, received.ttl), (B.into(), TTL));
                let packet = ControlPacket::parse(received.payload).expect("BIRD sends BFD");
                let result = self.session.on_packet(received.at, &packet, &mut out);
                self.refused.extend(result.err());
            }
            self.session.on_timer(now(), &mut out);
            self.carry_out(out);
            if done(&self.session) {
                return true;
            }
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(5_u8)).expect("poll works");
        }
        false
    }

    /// Waits until both sides tell a state. BIRD is asked now and then, not at each packet.
    fn both(&mut self, bird: &Bird, up: bool) -> bool {
        let mut next = Instant::now();
        let wanted = if up { "Up" } else { "Down" };
        self.run(PATIENCE, |session| {
            if session.is_up() != up || Instant::now() < next {
                return false;
            }
            next = Instant::now() + Duration::from_millis(300);
            bird.state().as_deref() == Some(wanted)
        })
    }
}

#[test]
fn bird_keeps_authenticated_sessions_with_ours() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::B);
        let Some(bird) = Bird::start("open sesame") else {
            // Past the test runner's capture: `cargo xtask test` lists these lines.
            let skipped = "SKIPPED bird_keeps_authenticated_sessions_with_ours: needs bird";
            writeln!(io::stderr(), "{skipped}").expect("write to stderr");
            return;
        };
        pair.enter(Side::A);
        let open = || BfdSocket::open_alone("a0", A.into(), &[B.into()]).unwrap();
        let mut ours = Ours::new(open(), "open sesame");
        pair.enter(Side::B);
        assert!(ours.both(&bird, true), "up: {}", bird.log());
        ours.run(Duration::from_secs(5), |_| false);
        assert_eq!((ours.ups, ours.downs), (1, 0), "{}", bird.log());
        assert_eq!(ours.refused, []);

        // Each end is told, and both come up again, ours with another discriminator.
        let before = ours.session.local_discriminator();
        ours.silent = true;
        let down = ours.both(&bird, false);
        assert!(down, "down: {}", bird.log());
        ours.silent = false;
        assert!(ours.both(&bird, true), "up again: {}", bird.log());
        assert_ne!(ours.session.local_discriminator(), before);
        // And a second time, ended by ours.
        let mut out = vec![];
        ours.session.admin_down(now(), &mut out);
        ours.carry_out(out);
        assert!(ours.both(&bird, false), "AdminDown: {}", bird.log());
        let mut out = vec![];
        ours.session.admin_up(now(), &mut out);
        ours.carry_out(out);
        assert!(ours.both(&bird, true), "up a third time: {}", bird.log());

        // A wrong password keeps both down.
        drop(ours);
        pair.enter(Side::A);
        let mut ours = Ours::new(open(), "open barley");
        pair.enter(Side::B);
        ours.run(Duration::from_secs(6), |_| false);
        assert_eq!((ours.ups, ours.session.is_up()), (0, false));
        assert_eq!(bird.state().as_deref(), Some("Down"), "{}", bird.log());
        let all_wrong = ours.refused.iter().all(|why| *why == Refused::Digest);
        assert!(all_wrong && ours.refused.len() >= 4, "{:?}", ours.refused);
    });
}
