//! Which container this program runs in, as far as the kernel tells.

/// Ids of containers, whole or from the beginning, that may be the one that this program runs in; none where it runs in none.
pub fn own_ids() -> std::sync::Arc<[String]> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // A container's host name is its short id unless it was given another.
    let names = [read("/proc/sys/kernel/hostname"), std::env::var("HOSTNAME").unwrap_or_default()];
    let mut ids = of_mounts(&read("/proc/self/mountinfo"));
    ids.extend(of_groups(&read("/proc/self/cgroup")));
    ids.extend(names.iter().map(|name| name.trim().to_owned()).filter(|name| is_id(name)));
    ids.into()
}

/// A daemon mounts files of the container's own directory, which its id names, over these.
///
/// Source: proc_pid_mountinfo(5): the fourth field is the root of the mount, the fifth where it is mounted.
fn of_mounts(mounts: &str) -> Vec<String> {
    let files = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
    let of_line = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        let id = || root.split('/').find(|part| part.len() == 64 && is_id(part));
        files.contains(&target).then(id)?.map(str::to_owned)
    };
    mounts.lines().filter_map(of_line).collect()
}

/// A control group of version 1 has the container's id in its path: `/docker/<id>`, `/system.slice/docker-<id>.scope`.
fn of_groups(groups: &str) -> Vec<String> {
    let parts = groups.lines().flat_map(|line| line.split(['/', '-', '.', ':']));
    parts.filter(|part| part.len() == 64 && is_id(part)).map(str::to_owned).collect()
}

fn is_id(text: &str) -> bool {
    (12..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_name_the_container() {
        let id = "0123456789abcdef".repeat(4);
        let mounts = format!(
            "700 1 0:50 / / rw - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/{0}/diff\n\
             701 700 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n\
             702 700 8:1 /var/lib/docker/containers/{0}/x /mnt rw - ext4 /dev/sda1 rw\n\
             703 700 8:1 /etc/hosts /etc/hosts rw - ext4 /dev/sda1 rw\n703",
            "f".repeat(64)
        );
        assert_eq!(of_mounts(&mounts), [id.as_str()]);
        let groups = format!("12:pids:/docker/{id}\n1:name=systemd:/system.slice/docker-{id}.scope\n0::/\n");
        assert_eq!(of_groups(&groups), [id.as_str(), id.as_str()]);
        assert!(of_mounts("").is_empty() && of_groups("0::/user.slice").is_empty());
        assert!(is_id("72daf87a5d7f") && !is_id("web-1") && !is_id("abc") && !is_id("72DAF87A5D7F"));
    }
}
