//! Looking at many tasks at once: each file of /proc costs the kernel its time, so every CPU takes a part.

use std::thread;

/// Tasks that one CPU has looked at before another has started to help.
const FEW: usize = 32;

/// What `look` tells of each item, in their order. The buffer keeps its room from call to call.
///
/// # Panics
/// When `look` does.
pub fn map<T: Sync, R: Send>(items: &[T], look: impl Fn(&T, &mut Vec<u8>) -> R + Sync) -> Vec<R> {
    let look_at = |part: &[T]| {
        let mut buffer = Vec::new();
        part.iter().map(|item| look(item, &mut buffer)).collect::<Vec<R>>()
    };
    let cpus = thread::available_parallelism().map_or(1, usize::from).min(items.len() / FEW);
    if cpus < 2 {
        return look_at(items);
    }
    let (own, others) = items.split_at(items.len() / cpus);
    thread::scope(|scope| {
        let parts: Vec<_> =
            others.chunks(others.len().div_ceil(cpus - 1)).map(|part| scope.spawn(|| look_at(part))).collect();
        let mut all = look_at(own);
        for part in parts {
            match part.join() {
                Ok(found) => all.extend(found),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}

/// What both find, at the same time where there are so many things to look at that it is worth a thread.
///
/// # Panics
/// When one of them does.
pub fn both<A, B: Send>(count: usize, one: impl FnOnce() -> A, other: impl FnOnce() -> B + Send) -> (A, B) {
    if count < 2 * FEW || thread::available_parallelism().map_or(1, usize::from) < 2 {
        return (one(), other());
    }
    thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        (one, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_found_however_many_there_are() {
        assert_eq!([both(1, || 1, || 2), both(1000, || 1, || 2)], [(1, 2); 2]);
    }

    #[test]
    fn every_item_in_its_order() {
        for count in [0, 1, FEW, 2 * FEW, 1000, 1001] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(map(&items, |item, _| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }
}
