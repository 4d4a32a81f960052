//! Medians, and how sure they are.

/// Samples that the bootstrap draws.
const DRAWS: usize = 10_000;

/// Xorshift: orders and draws that are the same in each run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Of a sample that is not empty; sorts it.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// The median of the rounds' values, and its 95 % interval: the bootstrap's 2.5th and 97.5th percentile.
pub fn interval(values: &[f64]) -> (f64, f64, f64) {
    let mut random = Random::new(0x5eed);
    let draw = |random: &mut Random| {
        let mut drawn: Vec<f64> = values.iter().map(|_| values[random.below(values.len())]).collect();
        median(&mut drawn)
    };
    let mut medians: Vec<f64> = (0..DRAWS).map(|_| draw(&mut random)).collect();
    medians.sort_by(f64::total_cmp);
    (median(&mut values.to_vec()), medians[DRAWS * 25 / 1000], medians[DRAWS * 975 / 1000])
}
