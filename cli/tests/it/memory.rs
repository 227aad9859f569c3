//! Workloads that are larger than the workers' memory, on processes: the benchmark checks each sum against one made in its own.

use crate::support::Place;

#[test]
fn what_memory_is_too_short_for_comes_back_from_disk() {
    let place = Place::new();
    let spill = place.path("spill");
    let sizes = ["--memory", "1GiB", "--data", "1536MiB", "--chunk", "16MiB"];
    let command = ["bench", "memory", "--spill-dir", spill.to_str().unwrap()];
    let ended = place.run(command.into_iter().chain(sizes));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<serde_json::Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let spilled: Vec<(&str, bool)> =
        lines.iter().map(|line| (line["case"].as_str().unwrap(), line["nbytes_spilled"].as_u64().unwrap() > 256 << 20)).collect();
    assert_eq!(spilled, [("persisted-sum", true), ("streaming-sum", false), ("rechunk", true)], "{}", ended.stdout);
    assert_eq!(place.names_in("spill"), Vec::<String>::new(), "nothing is left behind");
}
