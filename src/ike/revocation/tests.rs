use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rcgen::{BasicConstraints, CertificateParams, CrlDistributionPoint, IsCa, Issuer, KeyPair};

use super::*;

/// Paths below one authority, whose certificates each name a place.
struct Site {
    knowledge: Knowledge,
    authority: (CertificateParams, KeyPair),
    root: Arc<Certificate>,
    now: Instant,
    time: UnixTime,
    rng: ChaCha20Rng,
}

impl Site {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        let root = params.self_signed(&key).expect("signed");
        Self {
            knowledge: Knowledge::default(),
            authority: (params, key),
            root: Arc::new(Certificate::from_der(root.der()).expect("read")),
            now: Instant::now(),
            time: UnixTime::since_unix_epoch(Duration::from_secs(1_780_000_000)),
            rng: ChaCha20Rng::seed_from_u64(1),
        }
    }

    fn path(&self, uri: &str) -> Path {
        let (key, (params, issuer)) = (KeyPair::generate().expect("a key"), &self.authority);
        let mut leaf = CertificateParams::default();
        leaf.not_before = rcgen::date_time_ymd(2025, 1, 1);
        leaf.crl_distribution_points = vec![CrlDistributionPoint {
            uris: vec![uri.to_owned()],
        }];
        let leaf = leaf.signed_by(&key, &Issuer::from_params(params, issuer));
        let leaf = Certificate::from_der(leaf.expect("signed").der()).expect("read");
        let anchors = [Arc::clone(&self.root)];
        Path::build(&Arc::new(leaf), &[], &anchors, self.time).expect("a path")
    }

    fn judge(&mut self, ike: u64, path: &Path) -> Judgement {
        let question = Question {
            policy: Revocation::Strict,
            authorities: &[],
            lists: &[],
            answers: &[],
            now: self.now,
            time: self.time,
            timeout: Duration::from_secs(10),
            waiter: Some(Waiter {
                ike,
                until: self.now + Duration::from_secs(10),
            }),
        };
        self.knowledge.judge(path, &question, &mut self.rng)
    }

    /// The wish for a list, if there is a new one.
    fn ask(&mut self, ike: u64, path: &Path) -> Option<FetchId> {
        match self.judge(ike, path) {
            Judgement::Await(fetches) => fetches.first().map(|fetch| fetch.id),
            _ => panic!("it waits"),
        }
    }

    fn end(&mut self, id: FetchId) {
        let failed = Err("not there".to_owned());
        let result = self.knowledge.on_fetched(id, failed, (self.now, self.time));
        result.expect_err("not there");
    }

    fn woken(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.knowledge.wake()).collect()
    }
}

#[test]
fn an_outcome_wakes_those_who_wait_for_it_and_nobody_else() {
    let mut site = Site::new();
    let (one, two) = (
        site.path("http://one.example"),
        site.path("http://two.example"),
    );
    let first = site.ask(1, &one).expect("nobody has asked");
    let second = site.ask(2, &two).expect("nobody has asked");
    assert_eq!(site.ask(3, &one), None, "it is being asked");
    assert_eq!(site.ask(4, &two), None, "it is being asked");
    assert!(site.woken().is_empty());
    site.end(first);
    assert_eq!(site.woken(), [1, 3]);
    assert!(site.woken().is_empty(), "each once");
    site.knowledge.expire(site.now + Duration::from_secs(10));
    assert_eq!(site.woken(), [2, 4]);
    let late = Err("late".to_owned());
    let late = site
        .knowledge
        .on_fetched(second, late, (site.now, site.time));
    assert_eq!((late, site.woken()), (Ok(()), vec![]));
}

#[test]
fn as_many_as_there_is_room_for_are_woken_from_the_crowd() {
    let mut site = Site::new();
    let asked = (0..64).map(|ike| {
        let path = site.path(&format!("http://{ike}.example"));
        site.ask(ike, &path).expect("there is room")
    });
    let asked: Vec<_> = asked.collect();
    let path = site.path("http://last.example");
    for ike in 100..103 {
        assert_eq!(site.ask(ike, &path), None, "there is no room");
    }
    assert!(site.woken().is_empty());
    site.end(asked[7]);
    assert_eq!(site.knowledge.wake(), Some(7));
    assert_eq!(site.knowledge.wake(), Some(100));
    assert!(site.ask(100, &path).is_some(), "there is room");
    assert!(site.woken().is_empty());
    site.end(asked[8]);
    assert_eq!(site.woken(), [8, 101, 102], "nothing takes the room");
}
