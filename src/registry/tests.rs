use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

fn enter(registry: &Registry<u64>) -> u64 {
    registry.insert_with(Arc::new).unwrap()
}

#[test]
fn a_handle_knows_its_kind_and_lies_in_its_range() {
    let registry = Registry::new(Kind::Function);
    let raw = enter(&registry);
    assert!((4096..END_OF_HANDLES).contains(&raw));
    assert_eq!(kind_of(raw), Some(Kind::Function));
    for kind in [Kind::Plugin, Kind::CompiledPlugin, Kind::Function, Kind::CancelHandle, Kind::CurrentPlugin] {
        let other = with_kind(raw, kind);
        assert_eq!(kind_of(other), Some(kind));
        assert_eq!(with_kind(other, Kind::Function), raw);
        assert_eq!(registry.get(other).is_some(), kind == Kind::Function);
    }
}

#[test]
fn other_numbers_have_no_kind() {
    for raw in [0, 1, 4095, 4096, 4096 | 6, 4096 | 7, END_OF_HANDLES | 1, 0x7fff_dead_bee1, u64::MAX] {
        assert_eq!(kind_of(raw), None, "{raw:#x}");
    }
    assert_eq!(kind_of(4097), Some(Kind::Plugin));
    assert_eq!(kind_of(END_OF_HANDLES - 8 + 1), Some(Kind::Plugin));
}

#[test]
fn serials_end_below_the_limit() {
    let last = serial_of(END_OF_HANDLES - 1);
    assert!(new_handle(Kind::CurrentPlugin, last).unwrap() < END_OF_HANDLES);
    assert!(new_handle(Kind::Plugin, last + 1).is_err());
    assert!(new_handle(Kind::Plugin, u64::MAX).is_err());
}

#[test]
fn what_is_removed_is_stale_and_its_handle_never_comes_back() {
    let registry = Registry::new(Kind::Plugin);
    let mut seen = HashSet::new();
    for _ in 0..1000 {
        let raw = enter(&registry);
        assert!(seen.insert(raw));
        assert_eq!(registry.get(raw).as_deref(), Some(&raw));
        assert_eq!(registry.remove(raw).as_deref(), Some(&raw));
        assert!(registry.get(raw).is_none());
        assert!(registry.remove(raw).is_none());
    }
    assert_eq!(registry.len(), 0);
}

#[test]
fn misuse_is_told_apart() {
    let registry = Registry::new(Kind::Plugin);
    let raw = enter(&registry);
    drop(registry.remove(raw));
    let expected = Kind::Plugin;
    let say = |raw| Misuse::of(raw, expected);
    assert_eq!(say(0), Misuse::Null { expected });
    assert_eq!(say(raw), Misuse::Stale { expected });
    assert_eq!(say(with_kind(raw, Kind::Function)), Misuse::WrongKind { expected, found: Kind::Function });
    for foreign in [1, 4096, 0x7ffd_0000_1231, with_kind(END_OF_HANDLES - 1, expected)] {
        assert_eq!(say(foreign), Misuse::NotAHandle { expected, raw: foreign });
    }
}

#[test]
fn misuse_says_what_and_what_to_do() {
    let text = |raw| Error::from(Misuse::of(raw, Kind::Plugin)).to_string();
    assert_eq!(
        text(0),
        "NULL where an ExtismPlugin was expected: pass what extism_plugin_new returned, \
         after checking that it is not NULL"
    );
    assert_eq!(
        text(0x7ffd_0000_1230),
        "0x7ffd00001230 is not an ExtismPlugin: pass what extism_plugin_new returned, unchanged"
    );
    let registry = Registry::new(Kind::Function);
    assert!(text(enter(&registry)).starts_with("this is an ExtismFunction handle where an ExtismPlugin was expected"));
    let stale = Misuse::Stale { expected: Kind::Plugin }.to_string();
    assert!(stale.starts_with("this ExtismPlugin was freed already, or never existed"));
}

#[test]
fn hashes_of_one_shard_spread() {
    let slots: HashSet<u64> = (0..128)
        .map(|n| {
            let mut hasher = HandleHasher::default();
            hasher.write_u64(Kind::Plugin.handle(FIRST_SERIAL + n * SHARDS as u64));
            hasher.finish() & 127
        })
        .collect();
    assert!(slots.len() > 60, "only {} of 128 slots", slots.len());
}

#[test]
fn the_recent_object_is_found_and_not_kept_alive() {
    let registry = Registry::new(Kind::Plugin);
    let recent = Recent::new(|_, _| ());
    let raw = enter(&registry);
    assert!(recent.get(raw + 8, &registry, |_| true).is_none());
    for _ in 0..3 {
        assert_eq!(recent.get(raw, &registry, |_| true).as_deref(), Some(&raw));
    }
    let last = registry.remove(raw).unwrap();
    assert_eq!(Arc::strong_count(&last), 1);
    assert!(recent.get(raw, &registry, |_| false).is_none(), "alive, but not registered");
    drop(last);
    assert!(recent.get(raw, &registry, |_| true).is_none(), "gone");
}

#[test]
fn the_recent_object_changes_with_the_handle() {
    let registry = Registry::new(Kind::Plugin);
    let recent = Recent::new(|_, _| ());
    let handles = [enter(&registry), enter(&registry)];
    for raw in handles.into_iter().cycle().take(10) {
        assert_eq!(recent.get(raw, &registry, |_| true).as_deref(), Some(&raw));
    }
}

/// An object that notes its end, so that use after it would be seen.
struct Noted {
    raw: u64,
    freed: AtomicBool,
}

#[test]
fn threads_insert_find_and_remove_at_once() {
    static REGISTRY: Registry<Noted> = Registry::new(Kind::Plugin);
    const THREADS: usize = 8;
    let start = Barrier::new(THREADS);
    let shared: Vec<u64> = (0..4).map(|_| enter_noted(&REGISTRY)).collect();
    let removals = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                let recent = Recent::new(|_, _| ());
                for round in 0..2000 {
                    let own = enter_noted(&REGISTRY);
                    for raw in [own, shared[round % shared.len()], own] {
                        if let Some(object) = find(&recent, raw) {
                            assert_eq!(object.raw, raw);
                        }
                    }
                    let object = REGISTRY.get(own).unwrap();
                    object.freed.store(true, Ordering::Release);
                    assert_eq!(REGISTRY.remove(own).unwrap().raw, own);
                    assert!(find(&recent, own).is_none(), "freed by this thread");
                }
                for &raw in &shared {
                    if let Some(object) = REGISTRY.get(raw) {
                        object.freed.store(true, Ordering::Release);
                    }
                    removals.fetch_add(u64::from(REGISTRY.remove(raw).is_some()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(removals.into_inner(), 4);
    assert_eq!(REGISTRY.len(), 0);

    fn enter_noted(registry: &Registry<Noted>) -> u64 {
        registry.insert_with(|raw| Arc::new(Noted { raw, freed: AtomicBool::new(false) })).unwrap()
    }
    fn find(recent: &Recent<Noted>, raw: u64) -> Option<Arc<Noted>> {
        recent.get(raw, &REGISTRY, |object| !object.freed.load(Ordering::Acquire))
    }
}
