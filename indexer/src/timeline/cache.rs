//! What was used lately, up to a weight: two generations, of which the older one goes as a whole.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;

use crate::lock::lock;

/// A bounded cache of what is cheap to clone.
pub(super) struct Cache<K, V> {
    generations: Mutex<Generations<K, V>>,
    /// Of a generation.
    weight_max: usize,
}

struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    /// Of the young.
    weight: usize,
}

impl<K: Eq + Hash + Copy, V: Clone> Cache<K, V> {
    /// Holds at most `weight`, or a single value.
    pub(super) fn new(weight: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new(), weight: 0 };
        Self { generations: Mutex::new(generations), weight_max: weight / 2 }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut generations = lock(&self.generations);
        if let Some((value, _)) = generations.young.get(key) {
            return Some(value.clone());
        }
        let (value, weight) = generations.old.remove(key)?;
        generations.insert(*key, value.clone(), weight, self.weight_max);
        Some(value)
    }

    pub(super) fn insert(&self, key: K, value: V, weight: usize) {
        lock(&self.generations).insert(key, value, weight, self.weight_max);
    }

    #[cfg(test)]
    pub(super) fn clear(&self) {
        let mut generations = lock(&self.generations);
        (generations.young, generations.old, generations.weight) = (HashMap::new(), HashMap::new(), 0);
    }
}

impl<K: Eq + Hash, V> Generations<K, V> {
    fn insert(&mut self, key: K, value: V, weight: usize, weight_max: usize) {
        if self.weight.saturating_add(weight) > weight_max {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight = self.weight.saturating_add(weight);
        if let Some((_, replaced)) = self.young.insert(key, (value, weight)) {
            self.weight = self.weight.saturating_sub(replaced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let cache = Cache::new(20);
        for key in 0..100 {
            cache.insert(key, key * 2, 1);
            assert_eq!(cache.get(&0), Some(0), "{key}");
        }
        assert_eq!(cache.get(&99), Some(198));
        assert_eq!(cache.get(&50), None);
        let held = (0..100).filter(|key| cache.get(key).is_some()).count();
        assert!((1..=20).contains(&held), "{held}");
    }
}
