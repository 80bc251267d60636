//! Which control groups this process is in, and where their limits are. Pure, but for [`limit`] at the end.

use std::fs;
use std::path::{Path, PathBuf};

/// The directories whose limits of `controller` (`cpu`, `memory`) hold for a process: its own group's and those above,
/// in both versions of cgroups. `cgroup` is the text of `/proc/self/cgroup`, `mountinfo` that of
/// `/proc/self/mountinfo`.
#[must_use]
pub(super) fn directories(cgroup: &str, mountinfo: &str, controller: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for mount in mountinfo.lines().filter_map(Mount::parse) {
        let group = cgroup.lines().filter_map(Group::parse).find(|group| match mount.filesystem {
            "cgroup2" => group.is_v2(),
            "cgroup" => has(group.controllers, controller) && has(mount.options, controller),
            _ => false,
        });
        if let Some(group) = group {
            let own = Path::new(mount.point).join(below(group.path, mount.root));
            found.extend(own.ancestors().take_while(|dir| dir.starts_with(mount.point)).map(Path::to_owned));
        }
    }
    found
}

/// The least of the limits that `parse` finds in the directories of `controller`, read from the running system.
pub(super) fn limit<T: Ord>(
    controller: &str,
    parse: impl Fn(&dyn Fn(&str) -> Option<String>) -> Option<T>,
) -> Option<T> {
    let cgroup = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    directories(&cgroup, &mountinfo, controller)
        .iter()
        .filter_map(|dir| parse(&|file| fs::read_to_string(dir.join(file)).ok()))
        .min()
}

/// A line of `/proc/self/cgroup`: `4:memory:/a/b`, or `0::/a/b` in version 2.
struct Group<'a> {
    controllers: &'a str,
    path: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some(Self { controllers, path })
    }

    fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)):
/// `36 35 98:0 /root /mount/point rw,noatime shared:1 - filesystem source options`.
struct Mount<'a> {
    /// The group at the mount point.
    root: &'a str,
    point: &'a str,
    filesystem: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        Some(Self {
            root: before.next()?,
            point: before.next()?,
            filesystem: after.next()?,
            options: after.nth(1).unwrap_or_default(),
        })
    }
}

/// `path` as seen from the group that is mounted. Inside a container that sees only its own group, the path is that of
/// the host and leads nowhere: then the mount point itself is the own group.
fn below<'a>(path: &'a str, root: &str) -> &'a str {
    let rest = path.strip_prefix(root.trim_end_matches('/')).unwrap_or_default();
    if !rest.starts_with('/') || rest.split('/').any(|name| name == "..") {
        return "";
    }
    rest.trim_start_matches('/')
}

fn has(list: &str, name: &str) -> bool {
    list.split(',').any(|item| item == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

    fn shown(cgroup: &str, mountinfo: &str, controller: &str) -> Vec<String> {
        let plain = |dir: &PathBuf| dir.components().as_path().display().to_string();
        directories(cgroup, mountinfo, controller).iter().map(plain).collect()
    }

    #[test]
    fn version_2_own_group_and_all_above() {
        let dirs =
            shown("0::/system.slice/relay.service\n", &format!("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{V2}\n"), "cpu");
        assert_eq!(
            dirs,
            ["/sys/fs/cgroup/system.slice/relay.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"]
        );
    }

    #[test]
    fn version_2_in_a_container() {
        assert_eq!(shown("0::/\n", V2, "cpu"), ["/sys/fs/cgroup"]);
        assert_eq!(shown("0::/../other\n", V2, "cpu"), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn version_1_takes_the_hierarchy_of_the_controller() {
        let cgroup = "5:cpuset:/x\n4:memory:/relay\n3:cpu,cpuacct:/relay/a\n1:name=systemd:/\n";
        let mounts = "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      33 30 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";
        assert_eq!(
            shown(cgroup, mounts, "cpu"),
            ["/sys/fs/cgroup/cpu,cpuacct/relay/a", "/sys/fs/cgroup/cpu,cpuacct/relay", "/sys/fs/cgroup/cpu,cpuacct"]
        );
        assert_eq!(shown(cgroup, mounts, "memory"), ["/sys/fs/cgroup/memory/relay", "/sys/fs/cgroup/memory"]);
    }

    #[test]
    fn version_1_in_a_container_that_sees_the_hosts_path() {
        let mount = |root: &str| format!("32 30 0:28 {root} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory");
        let cgroup = "4:memory:/docker/abc\n";
        assert_eq!(shown(cgroup, &mount("/docker/abc"), "memory"), ["/sys/fs/cgroup/memory"]);
        assert_eq!(shown(cgroup, &mount("/docker/ab"), "memory"), ["/sys/fs/cgroup/memory"]);
        assert_eq!(
            shown("4:memory:/docker/abc/in\n", &mount("/docker/abc"), "memory"),
            ["/sys/fs/cgroup/memory/in", "/sys/fs/cgroup/memory"]
        );
    }

    #[test]
    fn texts_that_are_none_have_no_directories() {
        for text in ["", "\n", "0", "0:", "a b c - ", " - cgroup2", "0::/x"] {
            assert_eq!(directories(text, text, "cpu"), Vec::<PathBuf>::new(), "{text}");
        }
    }
}
