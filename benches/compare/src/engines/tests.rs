use super::*;

fn opened(kind: Kind, data: &Data) -> (tempfile::TempDir, Box<dyn Subject>) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut subject = kind.open(&Setup::new(dir.path(), data, false));
    subject.load(&mut data.batches());
    (dir, subject)
}

#[test]
fn every_engine_returns_what_was_loaded() {
    for values in [Values::Tiny, Values::Small] {
        let data = Data::new(3000, values);
        for kind in KINDS {
            let (_dir, subject) = opened(*kind, &data);
            for entries in data.batches() {
                assert!(subject.holds(&entries), "{}", kind.name);
                let mut other = entries;
                other[17].value[0] ^= 1;
                assert!(!subject.holds(&other), "{}", kind.name);
            }
            for key in data.missing(1000) {
                assert_eq!(subject.find(key.as_ref()), None, "{}", kind.name);
            }
            subject.close();
        }
    }
}

#[test]
fn digests_agree_and_tell_values_apart() {
    let data = Data::new(3000, Values::Small);
    let (keys, other) = (data.uniform(500), data.zipf(500));
    let digests = |subject: &dyn Subject, keys: &[Key]| {
        let mut times = Vec::new();
        let timed = subject.get_timed(keys, 7, &mut times);
        assert_eq!(times.len(), keys.len());
        let gets = subject.get(keys, 100, Touch::Ends);
        assert_eq!(gets, timed);
        assert_eq!(gets, subject.get_many(keys, 32));
        [gets, subject.get(keys, 100, Touch::All)]
    };
    let mut expected = None;
    for kind in KINDS {
        let (_dir, subject) = opened(*kind, &data);
        let got = digests(&*subject, &keys);
        assert_eq!(*expected.get_or_insert(got), got, "{}", kind.name);
        let got = digests(&*subject, &other);
        assert!(expected.is_some_and(|[ends, all]| ends != got[0] && all != got[1]));
        assert_eq!(subject.get(&data.missing(500), 100, Touch::All), 0);
    }
}

#[test]
fn pages_agree_with_the_order_of_keys() {
    let data = Data::new(3000, Values::Small);
    let mut names: Vec<_> = (0..data.keys).map(|id| data.entry(id)).collect();
    names.sort_by(|a, b| a.key.cmp(&b.key));
    let starts: Vec<Key> = data
        .uniform(20)
        .into_iter()
        .chain(data.missing(20))
        .collect();
    for limit in [1, 100] {
        let mut digest = 0u64;
        for start in &starts {
            let first = names.partition_point(|entry| &entry.key[..] < start.as_ref());
            for entry in names[first..].iter().take(limit) {
                let ends = Touch::Ends.of(&entry.key) ^ Touch::Ends.of(&entry.metadata);
                digest = digest.wrapping_mul(31).wrapping_add(ends);
            }
        }
        for kind in KINDS.iter().filter(|kind| kind.can.lists) {
            let (_dir, subject) = opened(*kind, &data);
            assert_eq!(subject.list(&starts, limit), digest, "{}", kind.name);
        }
    }
}

#[test]
fn puts_overwrite_and_survive_closing() {
    let mut data = Data::new(3000, Values::Small);
    let before = data;
    let fresh: Vec<_> = data.freshen().flatten().collect();
    for kind in KINDS.iter().filter(|kind| kind.can.writes) {
        for durable in [false, true] {
            let (dir, subject) = opened(*kind, &before);
            subject.close();
            let setup = Setup::new(dir.path(), &data, durable);
            let mut subject = kind.open(&setup);
            if !kind.can.files {
                subject.load(&mut before.batches());
            }
            let (first, rest) = fresh.split_first().expect("fresh entries");
            subject.put(first);
            subject.put_all(rest);
            subject.sync();
            if kind.can.compacts {
                subject.compact();
            }
            if kind.can.files {
                subject.close();
                subject = kind.open(&setup);
            }
            for id in 0..data.keys {
                let entry = data.entry(id);
                assert_eq!(
                    subject.find(&entry.key),
                    Some(stored(&entry)),
                    "{}",
                    kind.name
                );
            }
        }
    }
}

#[test]
fn what_was_removed_is_gone_and_the_rest_survives_tidying() {
    let data = Data::new(3000, Values::Small);
    let key = |id| data.key(id).as_ref().to_vec();
    let (removed, kept): (Vec<u64>, Vec<u64>) = (0..data.keys).partition(|id| id % 3 == 0);
    for kind in KINDS.iter().filter(|kind| kind.can.files) {
        let (_dir, mut subject) = opened(*kind, &data);
        subject.remove(&removed.iter().map(|id| key(*id)).collect::<Vec<_>>());
        if kind.can.tidies {
            subject.tidy();
        }
        if kind.can.compacts {
            subject.compact();
        }
        for id in &removed {
            assert_eq!(subject.find(&key(*id)), None, "{}", kind.name);
        }
        let kept: Vec<Entry> = kept.iter().map(|id| data.entry(*id)).collect();
        assert!(subject.holds(&kept), "{}", kind.name);
    }
}

#[test]
fn who_expires_entries_goes_by_the_clock_of_the_set_up() {
    let data = Data::new(100, Values::Small);
    for kind in KINDS.iter().filter(|kind| kind.can.expires) {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual(1000);
        let mut setup = Setup::new(dir.path(), &data, false);
        setup.clock = Some(clock.clone());
        let subject = kind.open(&setup);
        let (one, other) = (data.entry(1), data.entry(2));
        let mortal = Entry {
            expires: Some(1060),
            ..one.clone()
        };
        subject.put_all(&[mortal, other.clone()]);
        assert!(subject.holds(&[one.clone(), other.clone()]));
        clock.advance(60);
        assert_eq!(subject.find(&one.key), None, "{}", kind.name);
        assert!(subject.holds(&[other]));
    }
}
