//! The windows' state on disk: changed keys in sled every few seconds, and now and then a whole image beside it.
//!
//! Comes in: changed entries, or all of them, with the journal position they stand for. Goes out: at start, the newest
//! state that can be read. Guarantees: position, rules and entries of a save become durable together or not at all (one
//! batch; after sled's flush its file is fsynced by our own hand, as sled's flush does not wait for the disk).
//! On failure: a sled folder or an image that cannot be read is set aside, counted and reported; the other one, or the
//! journal, stands in. An error of the file system while saving is given back: the state is then older, not wrong.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use weir_shared::record::StreamId;

use super::image::{self, State};

/// sled wants small values: longer ones are cut into parts of this size.
const PART_BYTES: usize = 60_000;
/// sled's page cache.
const CACHE_BYTES: u64 = 1 << 20;
const META: &[u8] = b"meta";
const ENTRY: u8 = b'e';

/// State on disk.
pub(crate) struct Store {
    dir: PathBuf,
    db: Option<sled::Db>,
    image_position: Option<u64>,
    image_bytes: u64,
}

/// What a start found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The newest state that can be read.
    pub state: Option<State>,
    /// Whether it is what sled holds: then what changes can be added to it.
    pub in_sled: bool,
    /// What was set aside, and why.
    pub set_aside: Vec<String>,
}

impl Store {
    /// Opens the folder, which is made if need be.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Found)> {
        fs::create_dir_all(dir)?;
        let mut found = Found::default();
        let mut store = Self { dir: dir.to_owned(), db: None, image_position: None, image_bytes: 0 };
        match image::read(dir)? {
            Some(Ok(state)) => {
                store.image_position = Some(state.position);
                found.state = Some(state);
            }
            Some(Err(why)) => {
                found.set_aside.push(format!("image: {why}"));
                image::set_aside(dir)?;
            }
            None => {}
        }
        let sled = dir.join("sled");
        match open_sled(&sled) {
            Ok((db, state)) => {
                store.db = Some(db);
                let newer = |state: &State| found.state.as_ref().is_none_or(|f| f.position < state.position);
                if let Some(state) = state.filter(newer) {
                    (found.state, found.in_sled) = (Some(state), true);
                }
            }
            Err(why) => {
                found.set_aside.push(format!("sled: {why}"));
                let aside = dir.join("sled.damaged");
                fs::remove_dir_all(&aside).or_else(|e| match e.kind() {
                    io::ErrorKind::NotFound => Ok(()),
                    _ => Err(e),
                })?;
                fs::rename(&sled, &aside)?;
                store.db = Some(open_sled(&sled).map_err(io::Error::other)?.0);
            }
        }
        Ok((store, found))
    }

    /// Where the last image stands.
    pub(crate) const fn image_position(&self) -> Option<u64> {
        self.image_position
    }

    /// Bytes of the last image.
    pub(crate) const fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        let sled = self.db.as_ref().and_then(|db| db.size_on_disk().ok()).unwrap_or(0);
        sled + self.image_bytes
    }

    /// Saves what changed; `None` removes a key. `whole`: it is all there is, and what sled holds is worth nothing.
    /// Durable when this returns.
    pub(crate) fn save(
        &self,
        position: u64,
        stream: StreamId,
        rules: &str,
        changed: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        whole: bool,
    ) -> io::Result<()> {
        let Some(db) = &self.db else { return Ok(()) };
        let mut batch = sled::Batch::default();
        if whole {
            for key in db.scan_prefix([ENTRY]).keys() {
                batch.remove(key?);
            }
        }
        for (key, value) in changed {
            let parts_before = db.get(part_key(&key, 0))?.map_or(0, |first| parts_of(&first));
            let value = value.unwrap_or_default();
            let parts = value.chunks(PART_BYTES);
            let count = u16::try_from(parts.len()).map_err(io::Error::other)?;
            for (i, part) in (0..).zip(parts) {
                batch.insert(part_key(&key, i), [&count.to_be_bytes(), part].concat());
            }
            (count..parts_before).for_each(|i| batch.remove(part_key(&key, i)));
        }
        batch.insert(META, [&position.to_le_bytes()[..], &stream.0, rules.as_bytes()].concat());
        db.apply_batch(batch)?;
        db.flush()?;
        File::open(self.dir.join("sled").join("db"))?.sync_data()
    }

    /// Writes the image. Durable when this returns.
    pub(crate) fn write_image(&mut self, state: &State) -> io::Result<()> {
        self.image_bytes = image::write(&self.dir, state)?;
        self.image_position = Some(state.position);
        Ok(())
    }

    /// Drops it, and waits until sled's threads have let go of the file: before, it cannot be opened again.
    #[cfg(test)]
    pub(crate) fn close(self) {
        let file = self.dir.join("sled").join("db");
        drop(self);
        File::open(file).and_then(|file| file.lock()).expect("it was open");
    }
}

fn part_key(key: &[u8], part: u16) -> Vec<u8> {
    [&[ENTRY], key, &part.to_be_bytes()].concat()
}

fn parts_of(first: &[u8]) -> u16 {
    first.first_chunk().map_or(0, |count| u16::from_be_bytes(*count))
}

/// sled panics on some kinds of damage.
fn open_sled(dir: &Path) -> Result<(sled::Db, Option<State>), String> {
    let open = || -> Result<(sled::Db, Option<State>), String> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(None);
        let db = config.open().map_err(|e| e.to_string())?;
        let state = read_all(&db)?;
        Ok((db, state))
    };
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err("sled panicked while it read it".to_owned()))
}

/// The parts of one entry as far as they were read.
#[derive(Default)]
struct Gathered {
    count: u16,
    parts: u16,
    value: Vec<u8>,
}

fn read_all(db: &sled::Db) -> Result<Option<State>, String> {
    let Some(meta) = db.get(META).map_err(|e| e.to_string())? else { return Ok(None) };
    let (position, rest) = meta.split_first_chunk::<8>().ok_or("a short position")?;
    let (stream, rules) = rest.split_first_chunk::<16>().ok_or("a short stream")?;
    let rules = String::from_utf8(rules.to_vec()).map_err(|e| e.to_string())?;
    // By key: between the parts of one that has several stand those of keys that go on with NUL.
    let mut gathered: BTreeMap<Vec<u8>, Gathered> = BTreeMap::new();
    for entry in db.scan_prefix([ENTRY]) {
        let (key, value) = entry.map_err(|e| e.to_string())?;
        let (key, part) = key[1..].split_last_chunk::<2>().ok_or("a short key")?;
        let (count, value) = value.split_first_chunk::<2>().ok_or("a short value")?;
        let (part, count) = (u16::from_be_bytes(*part), u16::from_be_bytes(*count));
        let entry = gathered.entry(key.to_vec()).or_insert_with(|| Gathered { count, ..Gathered::default() });
        if part != entry.parts || count != entry.count || part >= count {
            return Err("a part without the one before it".to_owned());
        }
        entry.parts += 1;
        entry.value.extend_from_slice(value);
    }
    if gathered.values().any(|entry| entry.parts < entry.count) {
        return Err("parts are missing".to_owned());
    }
    let entries = gathered.into_iter().map(|(key, entry)| (key, entry.value)).collect();
    let (position, stream) = (u64::from_le_bytes(*position), StreamId(*stream));
    Ok(Some(State { position, stream, rules, entries }))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("weir-store-{name}-{}", std::process::id()));
            fs::remove_dir_all(&dir).ok();
            Self(dir)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    const S: StreamId = StreamId([3; 16]);

    fn entry(key: &[u8], length: usize) -> (Vec<u8>, Option<Vec<u8>>) {
        (key.to_vec(), Some(vec![7; length]))
    }

    #[test]
    fn saves_add_up_and_come_back() {
        let folder = Folder::new("saves");
        let (store, found) = Store::open(&folder.0).unwrap();
        assert_eq!(found.state, None);
        store.save(10, S, "r", vec![entry(b"a", 3), entry(b"b", 200_000), entry(b"c", 1)], false).unwrap();
        store.save(20, S, "s", vec![entry(b"b", 70_000), (b"c".to_vec(), None)], false).unwrap();
        store.close();
        let (store, found) = Store::open(&folder.0).unwrap();
        let state = found.state.unwrap();
        assert_eq!((state.position, &*state.rules), (20, "s"));
        let sizes: Vec<_> = state.entries.iter().map(|(k, v)| (&**k, v.len())).collect();
        assert_eq!(sizes, [(&b"a"[..], 3), (&b"b"[..], 70_000)]);
        assert!(found.in_sled);
        store.save(30, S, "s", vec![entry(b"b", 2)], true).unwrap();
        store.close();
        let state = Store::open(&folder.0).unwrap().1.state.unwrap();
        assert_eq!((state.position, state.entries), (30, vec![(b"b".to_vec(), vec![7; 2])]));
    }

    #[test]
    fn keys_that_end_in_nul_keep_their_parts_apart() {
        let folder = Folder::new("nul");
        let (store, _) = Store::open(&folder.0).unwrap();
        let keys: [&[u8]; 4] = [b"k", b"k\0", b"k\0\0", b"k\0\x01"];
        let saved: Vec<_> = keys.into_iter().zip(130_000..).map(|(key, length)| entry(key, length)).collect();
        store.save(10, S, "r", saved.clone(), false).unwrap();
        store.close();
        let (store, found) = Store::open(&folder.0).unwrap();
        assert_eq!(found.set_aside, Vec::<String>::new());
        let entries = found.state.unwrap().entries.into_iter().map(|(key, value)| (key, Some(value)));
        assert!(entries.eq(saved));
        store.db.as_ref().unwrap().remove(part_key(b"k\0", 1)).unwrap();
        store.close();
        let (_, found) = Store::open(&folder.0).unwrap();
        assert_eq!((found.state, found.set_aside.len()), (None, 1), "a part is missing");
    }

    #[test]
    fn the_newer_of_image_and_sled_counts_and_damage_is_set_aside() {
        let folder = Folder::new("newer");
        let (mut store, _) = Store::open(&folder.0).unwrap();
        store.save(10, S, "r", vec![entry(b"a", 3)], false).unwrap();
        let image = State { position: 30, stream: S, rules: "i".to_owned(), entries: vec![] };
        store.write_image(&image).unwrap();
        store.close();
        let (store, found) = Store::open(&folder.0).unwrap();
        assert_eq!((found.state, store.image_position()), (Some(image), Some(30)));
        store.close();
        fs::write(folder.0.join("image"), b"something else").unwrap();
        let (store, found) = Store::open(&folder.0).unwrap();
        assert_eq!((found.state.unwrap().position, found.set_aside.len()), (10, 1));
        store.close();
        fs::write(folder.0.join("sled").join("db"), vec![0xff; 5000]).unwrap();
        fs::write(folder.0.join("sled").join("conf"), b"x").unwrap();
        let (store, found) = Store::open(&folder.0).unwrap();
        assert_eq!((found.state, found.set_aside.len()), (None, 1), "{:?}", found.set_aside);
        store.save(40, S, "r", vec![entry(b"a", 3)], false).unwrap();
        store.close();
        assert_eq!(Store::open(&folder.0).unwrap().1.state.unwrap().position, 40);
    }
}
