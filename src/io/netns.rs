//! Network namespaces without names: for the demo and for the tests.
//!
//! A [`Namespace`] is a thread that lives in a fresh network namespace and runs what it is sent.
//! Nothing is mounted and nothing has a name, so when the process ends, however it ends, the
//! kernel takes back the namespace with its devices, and the processes started in it are killed.

mod features;
mod links;

use std::{
    fs::File,
    io,
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    process::{Child, Command},
    sync::mpsc::{Sender, channel},
    thread::{Builder, JoinHandle},
};

use ipnet::IpNet;
use rustix::{
    process::{Signal, getgid, getpid, getuid, set_parent_process_death_signal},
    thread::{
        LinkNameSpaceType, Pid, UnshareFlags, gettid, move_into_link_name_space, unshare_unsafe,
    },
};

/// A network namespace that lives as long as this value, with a thread inside it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: OwnedFd,
    resident: Pid,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Namespace {
    /// Creates an empty namespace with its loopback device up. `name` labels its threads.
    pub fn new(name: &str) -> io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        let (ready, made) = channel();
        let thread = thread_named(name).spawn(move || {
            let result = enter_new();
            let entered = result.is_ok();
            if ready.send(result).is_ok() && entered {
                inbox.into_iter().for_each(|job| job());
            }
        })?;
        let (handle, resident) = made.recv().map_err(|_| io::ErrorKind::BrokenPipe)??;
        let namespace = Self {
            name: name.to_owned(),
            handle,
            resident,
            jobs: Some(jobs),
            thread: Some(thread),
        };
        namespace.up("lo")?;
        Ok(namespace)
    }

    /// The label given at creation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `job` inside the namespace and returns what it returns; a panic is passed on.
    ///
    /// Jobs of one namespace run one after the other. Sockets and processes that a job creates
    /// belong to the namespace; the processes are killed when the namespace is dropped.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let boxed: Job = Box::new(move || {
            // The caller may have been told to stop waiting only by its own end.
            let _ = done.send(catch_unwind(AssertUnwindSafe(job)));
        });
        let jobs = self.jobs.as_ref().expect("the sender lives until drop");
        jobs.send(boxed)
            .expect("the resident thread catches panics and outlives this value");
        match result.recv().expect("every job answers") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Starts `command` inside the namespace; it is killed when this value is dropped.
    pub fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let end_with_parent =
            || set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
        // SAFETY: the closure makes one prctl system call, which is async-signal-safe.
        unsafe { command.pre_exec(end_with_parent) };
        self.run(move || command.spawn())
    }

    /// Starts a thread of its own inside the namespace, for work that takes long.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<T>>> {
        let handle = self.handle.try_clone()?;
        thread_named(&self.name).spawn(move || {
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })
    }

    /// Where other processes find the namespace: `nsenter --net=PATH`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let process = getpid().as_raw_nonzero();
        let resident = self.resident.as_raw_nonzero();
        PathBuf::from(format!("/proc/{process}/task/{resident}/ns/net"))
    }

    /// Brings a link up.
    pub fn up(&self, link: &str) -> io::Result<()> {
        let link = link.to_owned();
        self.run(move || links::set(&link, links::Change::Up))
    }

    /// Takes a link down.
    pub fn down(&self, link: &str) -> io::Result<()> {
        let link = link.to_owned();
        self.run(move || links::set(&link, links::Change::Down))
    }

    /// Sets the MTU of a link.
    pub fn set_mtu(&self, link: &str, mtu: u32) -> io::Result<()> {
        let link = link.to_owned();
        self.run(move || links::set(&link, links::Change::Mtu(mtu)))
    }

    /// Switches an offload of a link by its name in `ethtool -k`, for example
    /// `tx-udp-segmentation`.
    pub fn set_feature(&self, link: &str, feature: &str, on: bool) -> io::Result<()> {
        let (link, feature) = (link.to_owned(), feature.to_owned());
        self.run(move || features::set(&link, &feature, on))
    }

    /// Gives a link an address, usable at once (no duplicate address detection).
    pub fn add_address(&self, link: &str, address: IpNet) -> io::Result<()> {
        let link = link.to_owned();
        self.run(move || links::add_address(&link, address))
    }

    /// Routes `to` by way of `gateway`.
    pub fn add_route(&self, to: IpNet, gateway: IpAddr) -> io::Result<()> {
        self.run(move || links::add_route(to, gateway))
    }

    /// Sets a value below `/proc/sys/net` of this namespace, for example `ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        let path = format!("/proc/sys/net/{key}");
        let value = value.to_owned();
        self.run(move || std::fs::write(path, value))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // Jobs catch their panics, so there is nothing to learn from the result.
            let _ = thread.join();
        }
    }
}

/// Connects two namespaces with a pair of virtual Ethernet links, both up, with one MTU.
pub fn connect(a: (&Namespace, &str), b: (&Namespace, &str), mtu: u32) -> io::Result<()> {
    let (name_a, name_b) = (a.1.to_owned(), b.1.to_owned());
    let far = b.0.handle.try_clone()?;
    a.0.run(move || links::add_veth(&name_a, &name_b, far.as_fd(), mtu))?;
    a.0.up(a.1)?;
    b.0.up(b.1)
}

/// Makes this process root in a user namespace of its own, so that it may make network namespaces.
///
/// Only a process with a single thread can do this.
pub fn become_root_in_user_namespace() -> io::Result<()> {
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    // SAFETY: the descriptor table stays shared, which is the one hazard of this call.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// The index of a link in the calling thread's namespace.
pub fn link_index(link: &str) -> io::Result<u32> {
    links::index(link)
}

/// Moves the calling thread into a new network namespace.
fn enter_new() -> io::Result<(OwnedFd, Pid)> {
    // SAFETY: the descriptor table stays shared, which is the one hazard of this call.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok((File::open("/proc/thread-self/ns/net")?.into(), gettid()))
}

fn thread_named(name: &str) -> Builder {
    Builder::new().name(name.chars().take(15).collect())
}

#[cfg(test)]
#[path = "../../tests/support/skip.rs"]
mod skip;

/// A namespace for a unit test; where none can be made, the test is reported as skipped.
#[cfg(test)]
pub(crate) fn for_test(name: &str) -> Option<Namespace> {
    match Namespace::new(name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            skip::skip(&format!("needs root or user namespaces: {error}"));
            None
        }
        made => Some(made.expect("only privileges can be missing")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        process::Command,
    };

    use super::{Namespace, connect, for_test};

    /// Two connected namespaces.
    fn pair() -> Option<(Namespace, Namespace)> {
        let a = for_test("a")?;
        let b = Namespace::new("b").unwrap();
        connect((&a, "to-b"), (&b, "to-a"), 1400).unwrap();
        Some((a, b))
    }

    #[test]
    fn connected_namespaces_talk_to_each_other_in_both_families() {
        let Some((a, b)) = pair() else { return };
        for (address_a, address_b, listen) in [
            ("192.0.2.1/24", "192.0.2.2/24", "192.0.2.2:9"),
            ("2001:db8::1/64", "2001:db8::2/64", "[2001:db8::2]:9"),
        ] {
            a.add_address("to-b", address_a.parse().unwrap()).unwrap();
            b.add_address("to-a", address_b.parse().unwrap()).unwrap();
            let listener = b.run(move || TcpListener::bind(listen)).unwrap();
            let mut client = a.run(move || TcpStream::connect(listen)).unwrap();
            client.write_all(b"hello").unwrap();
            let mut heard = [0; 5];
            listener.accept().unwrap().0.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"hello");
        }
    }

    #[test]
    fn an_offload_is_switched_by_its_name() {
        let Some((a, _b)) = pair() else { return };
        a.set_feature("to-b", "tx-udp-segmentation", false).unwrap();
        a.set_feature("to-b", "tx-udp-segmentation", true).unwrap();
        let unknown = a.set_feature("to-b", "no-such-offload", true).unwrap_err();
        assert_eq!(unknown.kind(), std::io::ErrorKind::NotFound);
        let fixed = a.set_feature("lo", "tx-lockless", false).unwrap_err();
        assert_ne!(fixed.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(
            a.set_feature("absent", "tx-udp-segmentation", true)
                .is_err()
        );
    }

    #[test]
    fn a_process_in_a_namespace_ends_with_it() {
        let Some((a, _)) = pair() else { return };
        let mut sleep = Command::new("sleep");
        sleep.arg("1000");
        let mut child = a.spawn(sleep).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(a);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_job_that_panics_does_not_take_the_namespace_with_it() {
        let Some((a, _)) = pair() else { return };
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            a.run(|| panic!("as intended"));
        }));
        assert!(panicked.is_err());
        assert_eq!(a.run(|| 7), 7);
    }
}
