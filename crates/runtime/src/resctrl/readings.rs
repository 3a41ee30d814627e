//! What resctrl tells of a container's group, in the words of `runc events`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::Group;

/// Schemata of the host and of the group, and what is counted for each cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Readings {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mbm_stats: Vec<Traffic>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmt_stats: Vec<Occupancy>,
}

/// What the processor can divide of its cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

/// What it can divide of its way to memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct BandwidthInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

/// Bytes that have gone to memory, through one cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Traffic {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

/// Bytes in one cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

impl Group {
    /// What there is to read; what the processor does not count is left out.
    pub fn readings(&self) -> Readings {
        // A group lies right in the root, or is the root.
        let parent = self.folder.parent().filter(|parent| parent.join("info").is_dir());
        let root = parent.unwrap_or(&self.folder);
        let counted = self.monitoring.as_deref().unwrap_or(&self.folder);
        let info = |name: &str| Some(root.join("info").join(name)).filter(|folder| folder.is_dir());
        let caches = caches(counted);
        let has = |name: &str| caches.iter().any(|cache| cache.join(name).exists());
        Readings {
            l3_cache_info: info("L3").map(|folder| CacheInfo {
                cbm_mask: text(&folder.join("cbm_mask")),
                min_cbm_bits: number(&folder.join("min_cbm_bits")),
                num_closids: number(&folder.join("num_closids")),
            }),
            l3_cache_schema_root: schema(root, "L3:"),
            l3_cache_schema: schema(&self.folder, "L3:"),
            mem_bw_info: info("MB").map(|folder| BandwidthInfo {
                bandwidth_gran: number(&folder.join("bandwidth_gran")),
                delay_linear: number(&folder.join("delay_linear")),
                min_bandwidth: number(&folder.join("min_bandwidth")),
                num_closids: number(&folder.join("num_closids")),
            }),
            mem_bw_schema_root: schema(root, "MB:"),
            mem_bw_schema: schema(&self.folder, "MB:"),
            mbm_stats: if has("mbm_total_bytes") || has("mbm_local_bytes") {
                caches.iter().map(|cache| traffic(cache)).collect()
            } else {
                Vec::new()
            },
            cmt_stats: if has("llc_occupancy") {
                let occupancy =
                    |cache: &PathBuf| Occupancy { llc_occupancy: number(&cache.join("llc_occupancy")) };
                caches.iter().map(occupancy).collect()
            } else {
                Vec::new()
            },
        }
    }
}

fn traffic(cache: &Path) -> Traffic {
    Traffic {
        mbm_total_bytes: number(&cache.join("mbm_total_bytes")),
        mbm_local_bytes: number(&cache.join("mbm_local_bytes")),
    }
}

/// Folders of what is counted, one for each cache of the last level, in the order of their numbers.
fn caches(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group.join("mon_data")).into_iter().flatten().flatten();
    let of_cache =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mon_L3_"));
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(of_cache).collect();
    folders.sort();
    folders
}

fn schema(group: &Path, prefix: &str) -> String {
    let schemata = text(&group.join("schemata"));
    schemata.lines().map(str::trim).find(|line| line.starts_with(prefix)).unwrap_or_default().to_owned()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

/// A counter that says `Unavailable` or `Error` reads as nothing.
fn number(path: &Path) -> u64 {
    text(path).trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemata_and_counters_are_those_of_the_group() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("info/L3/cbm_mask", "7ff\n");
        put("info/L3/min_cbm_bits", "1\n");
        put("info/L3/num_closids", "16\n");
        put("schemata", "    MB:0=100\n    L3:0=7ff\n");
        put("c1/schemata", "    MB:0=50\n    L3:0=f\n");
        for (cache, bytes) in [("mon_L3_01", "22\n"), ("mon_L3_00", "11\n")] {
            put(&format!("c1/mon_data/{cache}/llc_occupancy"), bytes);
            put(&format!("c1/mon_data/{cache}/mbm_total_bytes"), "Unavailable\n");
        }
        let group = Group { folder: root.path().join("c1"), own: true, monitoring: None };
        let shown = serde_json::to_value(group.readings()).unwrap();
        assert_eq!(
            shown,
            serde_json::json!({
                "l3_cache_info": { "cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16 },
                "l3_cache_schema_root": "L3:0=7ff",
                "l3_cache_schema": "L3:0=f",
                "mem_bw_schema_root": "MB:0=100",
                "mem_bw_schema": "MB:0=50",
                "mbm_stats": [{ "mbm_total_bytes": 0, "mbm_local_bytes": 0 }, { "mbm_total_bytes": 0, "mbm_local_bytes": 0 }],
                "cmt_stats": [{ "llc_occupancy": 11 }, { "llc_occupancy": 22 }],
            })
        );
    }
}
