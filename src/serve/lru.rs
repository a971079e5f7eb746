//! Things kept until their bytes are needed for newer ones, or their time is over.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A map with a limit on the bytes of its values: what was used longest ago goes first. With a lifetime, what was put
/// in longer ago than that is gone, too.
///
/// The limit counts what [`Lru::put`] is told; a value larger than the whole limit is not kept at all.
pub struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by when they were used: [`Entry::used`] is the place of an entry in it.
    order: BTreeMap<u64, K>,
    limit: usize,
    lifetime: Option<Duration>,
    bytes: usize,
    clock: u64,
}

struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
    born: Instant,
}

impl<K: Hash + Eq + Clone, V: Clone> Lru<K, V> {
    /// An empty map for `limit` bytes of values, each kept for `lifetime` at most.
    pub fn new(limit: usize, lifetime: Option<Duration>) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), limit, lifetime, bytes: 0, clock: 0 }
    }

    /// The value of `key`, now the one used last.
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.clock += 1;
        let (lifetime, clock) = (self.lifetime, self.clock);
        let entry = self.entries.get_mut(key).filter(|e| lifetime.is_none_or(|t| e.born.elapsed() < t))?;
        let key = self.order.remove(&entry.used)?;
        entry.used = clock;
        self.order.insert(clock, key);
        Some(entry.value.clone())
    }

    /// Keeps `value`, and returns what had to go for it, a former value of `key` included. If `value` itself is larger
    /// than the limit, it is what is returned.
    pub fn put(&mut self, key: K, value: V, bytes: usize) -> Vec<V> {
        if bytes > self.limit {
            return vec![value];
        }
        let mut gone: Vec<V> = self.remove(&key).into_iter().collect();
        while self.bytes + bytes > self.limit {
            let Some(oldest) = self.order.first_key_value().map(|(_, k)| k.clone()) else { break };
            gone.extend(self.remove(&oldest));
        }
        self.clock += 1;
        self.bytes += bytes;
        self.order.insert(self.clock, key.clone());
        self.entries.insert(key, Entry { value, bytes, used: self.clock, born: Instant::now() });
        gone
    }

    /// Takes a value out.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.used);
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    /// Drops what is older than the lifetime, and returns it.
    pub fn expire(&mut self) -> Vec<V> {
        let Some(lifetime) = self.lifetime else { return Vec::new() };
        let old: Vec<K> =
            self.entries.iter().filter(|(_, e)| e.born.elapsed() >= lifetime).map(|(k, _)| k.clone()).collect();
        old.iter().filter_map(|k| self.remove(k)).collect()
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_used_longest_ago_goes_first() {
        let mut lru = Lru::new(10, None);
        assert!(lru.put("a", 1, 4).is_empty() && lru.put("b", 2, 4).is_empty());
        assert_eq!(lru.get("a"), Some(1));
        assert_eq!(lru.put("c", 3, 4), [2]);
        assert_eq!((lru.get("a"), lru.get("b"), lru.get("c")), (Some(1), None, Some(3)));
        assert_eq!((lru.bytes(), lru.len()), (8, 2));
        assert_eq!(lru.put("a", 9, 10), [1, 3]);
        assert_eq!(lru.put("d", 7, 11), [7], "larger than everything");
        assert_eq!((lru.get("a"), lru.get("d"), lru.bytes()), (Some(9), None, 10));
    }

    #[test]
    fn values_have_an_end() {
        let mut lru = Lru::new(10, Some(Duration::ZERO));
        lru.put("a", 1, 4);
        assert_eq!(lru.get("a"), None);
        assert_eq!(lru.expire(), [1]);
        assert_eq!((lru.bytes(), lru.len()), (0, 0));
    }
}
