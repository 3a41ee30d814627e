//! Limits as files of the unified hierarchy, with runc's conversions of what v1 counts otherwise.

use super::{Absence, InForce, Limits, List, Setting, pids_text, set};

impl Limits {
    /// The settings for the unified hierarchy.
    pub fn v2(&self, in_force: &InForce) -> Vec<Setting> {
        let mut list = List::default();
        let memory = &self.memory;
        list.put("memory", "memory.max", memory.limit.map(max_or));
        list.put_optional("memory", "memory.swap.max", self.swap_v2(in_force));
        list.put("memory", "memory.low", memory.reservation.map(max_or));
        self.cpu_v2(&mut list, in_force);
        list.put("cpuset", "cpuset.cpus", set(&self.cpu.cpus));
        list.put("cpuset", "cpuset.mems", set(&self.cpu.mems));
        list.put("pids", "pids.max", self.pids.and_then(pids_text));
        self.block_v2(&mut list);
        for (size, bytes) in &self.huge_pages {
            list.put("hugetlb", format!("hugetlb.{size}.max"), Some(bytes));
            list.add(Absence::Fine, "hugetlb", format!("hugetlb.{size}.rsvd.max"), Some(bytes));
        }
        list.rdma(self);
        list.0
    }

    /// What v2 has no file for, by the names of the specification.
    pub fn without_v2(&self) -> Vec<&'static str> {
        let (memory, cpu) = (&self.memory, &self.cpu);
        let given = [
            ("memory.swappiness", memory.swappiness.is_some()),
            ("memory.disableOOMKiller", memory.disable_oom_killer == Some(true)),
            ("memory.kernelTCP", memory.kernel_tcp.is_some()),
            ("cpu.realtimeRuntime", cpu.realtime_runtime.is_some()),
            ("cpu.realtimePeriod", cpu.realtime_period.is_some()),
            ("blockIO.leafWeight", self.block.leaf_weight.is_some()),
            ("network.classID", self.network_class.is_some()),
            ("network.priorities", !self.network_priorities.is_empty()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// Files given as they are.
    pub fn unified_settings(&self) -> Vec<Setting> {
        let setting = |(file, value): (&String, &String)| Setting {
            controller: file.split('.').next().unwrap_or_default().to_owned(),
            choices: vec![(file.clone(), value.clone())],
            absence: Absence::Error,
        };
        self.unified.iter().map(setting).collect()
    }

    /// v2 limits swap alone, the specification memory and swap together.
    fn swap_v2(&self, in_force: &InForce) -> Option<String> {
        let limit = self.memory.limit.or(in_force.memory_max);
        match (self.memory.swap, limit) {
            // As on v1: what has no limit of memory has none of swap.
            (None, _) => self.memory.limit.filter(|limit| *limit < 0).map(max_or),
            (Some(swap), _) if swap < 0 => Some("max".to_owned()),
            (Some(swap), Some(limit)) if limit > 0 => Some((swap - limit).max(0).to_string()),
            (Some(swap), _) => Some(swap.to_string()),
        }
    }

    fn cpu_v2(&self, list: &mut List, in_force: &InForce) {
        let cpu = &self.cpu;
        // The kernel refuses a weight for an idle group.
        let weight = set(&cpu.shares).filter(|_| cpu.idle != Some(1)).map(weight_of_shares);
        list.put("cpu", "cpu.weight", weight);
        let quota = set(&cpu.quota).map(max_or);
        let bandwidth = match (quota, set(&cpu.period)) {
            (None, None) => None,
            // The kernel keeps the period.
            (Some(quota), None) => Some(quota),
            (quota, Some(period)) => {
                let quota = quota.or(in_force.cpu_max.clone()).unwrap_or("max".to_owned());
                Some(format!("{quota} {period}"))
            }
        };
        list.put("cpu", "cpu.max", bandwidth);
        list.put_optional("cpu", "cpu.max.burst", cpu.burst);
        list.put_optional("cpu", "cpu.idle", cpu.idle);
    }

    fn block_v2(&self, list: &mut List) {
        let block = &self.block;
        let either = |bfq: String, plain: String| Some([("io.bfq.weight", bfq), ("io.weight", plain)]);
        if let Some(weight) = set(&block.weight) {
            list.put_either("io", either(weight.to_string(), weight_of_block(weight.into()).to_string()));
        }
        for rate in &block.device_weights {
            let device = format!("{}:{}", rate.major, rate.minor);
            let plain = format!("{device} {}", weight_of_block(rate.rate));
            list.put_either("io", either(format!("{device} {}", rate.rate), plain));
        }
        let rates = [
            ("rbps", &block.read_bytes),
            ("wbps", &block.write_bytes),
            ("riops", &block.read_operations),
            ("wiops", &block.write_operations),
        ];
        for (word, rates) in rates {
            for rate in rates {
                let limit = if rate.rate == 0 { "max".to_owned() } else { rate.rate.to_string() };
                list.put("io", "io.max", Some(format!("{}:{} {word}={limit}", rate.major, rate.minor)));
            }
        }
    }
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Shares 2..=262144 onto weights 1..=10000 so that the defaults, 1024 and 100, agree too: the power of ten that is
/// quadratic in the binary logarithm, as runc (since 1.3.2) and crun do it.
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = log2(shares);
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // Less what the arithmetic adds to a power that is a whole number.
            (power_of_ten(exponent) - 1e-9).ceil() as u64
        }
    }
}

/// Binary logarithm. By its series, because libm would be one more library inside the static executables.
fn log2(number: u64) -> f64 {
    let whole = number.max(1).ilog2();
    let rest = number.max(1) as f64 / (1_u64 << whole) as f64;
    // ln(x) = 2 artanh((x - 1) / (x + 1)); for x below 2 each term is a ninth of the one before.
    let ratio = (rest - 1.0) / (rest + 1.0);
    let (mut term, mut sum) = (ratio, 0.0);
    for n in (1..40).step_by(2) {
        sum += term / f64::from(n);
        term *= ratio * ratio;
    }
    f64::from(whole) + 2.0 * sum / std::f64::consts::LN_2
}

/// Ten to a power between 0 and 5, by the series of the exponential function.
fn power_of_ten(exponent: f64) -> f64 {
    let x = exponent * std::f64::consts::LN_10;
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1..60 {
        term *= x / f64::from(n);
        sum += term;
    }
    sum
}

/// Weights 10..=1000 of blkio onto 1..=10000 of io, as runc and crun do.
fn weight_of_block(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_agree_at_both_ends_and_at_the_default() {
        for shares in [3_u64, 7, 100, 1024, 4096, 99_999, 262_143] {
            let (log, exponent) = ((shares as f64).log2(), 1.0 + shares as f64 / 100_000.0);
            assert!((log2(shares) - log).abs() < 1e-12, "{shares}");
            assert!((power_of_ten(exponent) / 10_f64.powf(exponent) - 1.0).abs() < 1e-12, "{exponent}");
        }
        let weights = [2, 3, 1024, 2048, 262_143, 262_144, u64::MAX].map(weight_of_shares);
        assert_eq!((weights[0], weights[2], weights[5], weights[6]), (1, 100, 10_000, 10_000));
        assert!(weights.is_sorted(), "{weights:?}");
        assert_eq!([0, 10, 1000].map(weight_of_block), [1, 1, 10_000]);
    }
}
