//! The order of servers: sorted by name, as discovered, or Ruby's seeded shuffle.

/// MT19937, as far as a shuffle needs it.
///
/// Source: Matsumoto and Nishimura, "Mersenne Twister" (1998) and their mt19937ar.c.
#[derive(Debug, Clone)]
struct Twister {
    state: [u32; N],
    next: usize,
}

const N: usize = 624;
const M: usize = 397;

impl Twister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let before = state[i - 1];
            let step = u32::try_from(i).unwrap_or_default(); // i is below 624
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(step);
        }
        Self { state, next: N }
    }

    /// A seed of more than 32 bits, in words, the lowest first.
    fn by_array(key: &[u32]) -> Self {
        let mut mt = Self::new(19_650_218);
        let s = &mut mt.state;
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            let mixed = (s[i - 1] ^ (s[i - 1] >> 30)).wrapping_mul(1_664_525);
            s[i] = (s[i] ^ mixed).wrapping_add(key[j]).wrapping_add(u32::try_from(j).unwrap_or_default());
            (i, j) = (i + 1, (j + 1) % key.len());
            if i >= N {
                s[0] = s[N - 1];
                i = 1;
            }
        }
        for _ in 0..N - 1 {
            let mixed = (s[i - 1] ^ (s[i - 1] >> 30)).wrapping_mul(1_566_083_941);
            s[i] = (s[i] ^ mixed).wrapping_sub(u32::try_from(i).unwrap_or_default());
            i += 1;
            if i >= N {
                s[0] = s[N - 1];
                i = 1;
            }
        }
        s[0] = 0x8000_0000;
        mt
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform in 0 to `limit`; draws nothing for 0.
    fn up_to(&mut self, limit: usize) -> usize {
        if limit == 0 {
            return 0;
        }
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let mask = u32::MAX >> limit.leading_zeros();
        loop {
            let drawn = self.u32() & mask;
            if drawn <= limit {
                return usize::try_from(drawn).unwrap_or_default();
            }
        }
    }
}

/// Shuffles as Ruby's `Array#shuffle(random: Random.new(seed))` does, each time from the seed on.
#[derive(Debug, Clone)]
pub struct Shuffle(Twister);

impl Shuffle {
    /// A shuffle with this seed, whose sign does not count.
    pub fn new(seed: i64) -> Self {
        let size = seed.unsigned_abs();
        let low = u32::try_from(size & 0xffff_ffff).unwrap_or_default();
        let high = u32::try_from(size >> 32).unwrap_or_default();
        let mut random = if high == 0 { Twister::new(low) } else { Twister::by_array(&[low, high]) };
        random.twist(); // once for all
        Self(random)
    }

    /// Shuffles `items`.
    pub fn apply<T>(&self, items: &mut [T]) {
        let mut random = self.0.clone();
        for i in (0..items.len()).rev() {
            items.swap(i, random.up_to(i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_mt19937() {
        // The reference program's first numbers for init_genrand(5489), its default seed.
        let mut mt = Twister::new(5489);
        assert_eq!([mt.u32(), mt.u32(), mt.u32()], [3_499_211_612, 581_869_302, 3_890_346_734]);
        // And for init_by_array({0x123, 0x234, 0x345, 0x456}), from mt19937ar.out.
        let mut mt = Twister::by_array(&[0x123, 0x234, 0x345, 0x456]);
        assert_eq!([mt.u32(), mt.u32(), mt.u32()], [1_067_595_299, 955_945_823, 477_289_528]);
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_the_same_each_time() {
        for seed in [0, 1, -7, 4_294_967_295, 1 << 40] {
            let mut a: Vec<usize> = (0..50).collect();
            let shuffle = Shuffle::new(seed);
            shuffle.apply(&mut a);
            let mut b: Vec<usize> = (0..50).collect();
            shuffle.apply(&mut b);
            assert_eq!(a, b);
            a.sort_unstable();
            assert_eq!(a, (0..50).collect::<Vec<_>>());
        }
    }
}
