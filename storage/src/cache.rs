//! A bounded cache: least recently used, approximately, in constant time.
//!
//! Two generations. What is used moves to the young one; when that is full it becomes the old one, and the old one goes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};

/// Shared values by key; their weights add up to at most the bound.
pub(crate) struct Cache<K, V> {
    generations: Mutex<Generations<K, V>>,
    weight_max: usize,
}

struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    young_weight: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    pub(crate) fn new(weight_max: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new(), young_weight: 0 };
        Self { generations: Mutex::new(generations), weight_max }
    }

    fn lock(&self) -> MutexGuard<'_, Generations<K, V>> {
        self.generations.lock().expect("no panic under this lock")
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut generations = self.lock();
        if let Some((value, _)) = generations.young.get(key) {
            return Some(value.clone());
        }
        let (value, weight) = generations.old.remove(key)?;
        self.put(&mut generations, key.clone(), value.clone(), weight);
        Some(value)
    }

    pub(crate) fn insert(&self, key: K, value: V, weight: usize) {
        let mut generations = self.lock();
        generations.old.remove(&key);
        self.put(&mut generations, key, value, weight);
    }

    fn put(&self, generations: &mut Generations<K, V>, key: K, value: V, weight: usize) {
        if generations.young_weight + weight > self.weight_max / 2 {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_weight = 0;
        }
        generations.young_weight += weight;
        if let Some((_, replaced)) = generations.young.insert(key, (value, weight)) {
            generations.young_weight -= replaced;
        }
    }

    pub(crate) fn remove(&self, key: &K) {
        let mut generations = self.lock();
        generations.old.remove(key);
        if let Some((_, weight)) = generations.young.remove(key) {
            generations.young_weight -= weight;
        }
    }

    /// Keeps only what `keep` wants.
    pub(crate) fn retain(&self, keep: impl Fn(&K) -> bool) {
        let mut generations = self.lock();
        generations.old.retain(|key, _| keep(key));
        generations.young.retain(|key, _| keep(key));
        generations.young_weight = generations.young.values().map(|(_, weight)| weight).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_go_first_and_the_bound_holds() {
        let cache = Cache::new(20);
        for i in 0..100 {
            cache.insert(i, i * 2, 1);
            assert_eq!(cache.get(&0), Some(0), "used all the time");
            let generations = cache.lock();
            assert!(generations.young.len() + generations.old.len() <= 20);
        }
        assert_eq!(cache.get(&99), Some(198));
        assert_eq!(cache.get(&50), None);
        cache.retain(|key| *key != 99);
        assert_eq!(cache.get(&99), None);
        cache.insert(8, 1, 1);
        cache.remove(&8);
        assert_eq!(cache.get(&8), None);
        cache.insert(7, 1, 1_000);
        assert_eq!(cache.get(&7), Some(1), "one that is too large alone is kept until the next");
    }
}
