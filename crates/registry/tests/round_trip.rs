//! Push and pull between two stores over our own registry on loopback. Needs root: layers keep their owners.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_images::{Progress, PullOptions};
use gantry_model::digest::Digest;
use gantry_model::platform::Platform;
use support::{Server, busybox_tar, image, pull, push, read_in, store};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_arrives_as_it_was_pushed() {
    let server = Server::start().await;
    let name = server.reference("team/app:1");
    let (_a, from) = store();
    let id = image(&from, vec![busybox_tar(100_000), busybox_tar(50_000)], &name).await;
    let pushed = push(&from, &name).await;
    let (_b, to) = store();
    let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let pulled = to.pull(&name, &PullOptions::default(), Arc::new(events)).await.expect("pull");
    assert_eq!((pulled.image, pulled.digest, pulled.up_to_date), (id, pushed.digest, false));
    assert_eq!(read_in(&to, &id, "bin/busybox"), std::fs::read("/bin/busybox").expect("busybox"));
    let image = to.get(&name.to_string()).expect("by name");
    assert_eq!(image.repo_tags, [name.familiar()]);
    assert_eq!(image.repo_digests, [name.with_digest(pushed.digest).familiar()]);
    let by_digest = to.resolve(&name.with_digest(pushed.digest).to_string()).expect("by digest");
    assert_eq!(by_digest, id);
    let again = pull(&to, &name).await.expect("pull again");
    assert!(again.up_to_date);
    let mut statuses = Vec::new();
    while let Ok(event) = seen.try_recv() {
        if let Progress::Layer { status, .. } = event {
            statuses.push(status.as_str());
        }
    }
    for expected in
        ["Pulling fs layer", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"]
    {
        assert!(statuses.contains(&expected), "{expected} in {statuses:?}");
    }
    let pinned = pull(&to, &name.with_digest(pushed.digest)).await.expect("pull by digest");
    assert_eq!(pinned.image, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_at_the_same_time_share_the_work() {
    let server = Server::start().await;
    let name = server.reference("app:1");
    let (_a, from) = store();
    let id = image(&from, vec![busybox_tar(2_000_000), busybox_tar(1_000)], &name).await;
    push(&from, &name).await;
    let (_b, to) = store();
    let pulls = (0..6).map(|_| {
        let (to, name) = (Arc::clone(&to), name.clone());
        tokio::spawn(async move { pull(&to, &name).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        assert_eq!(pull.await.expect("task").expect("pull").image, id);
    }
    assert_eq!(to.list().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_downloaded_before_is_not_asked_for_again() {
    let server = Server::start().await;
    let name = server.reference("app:1");
    let (_a, from) = store();
    let id = image(&from, vec![busybox_tar(3_000_000)], &name).await;
    push(&from, &name).await;
    let blob = from.image(&id).expect("image").record.layers[0].blob.digest;
    let packed = std::fs::read(from.content().path(&blob)).expect("blob");
    let (_b, to) = store();
    // A former process was killed in the middle of the download.
    std::fs::write(to.content().partial_path(&blob.hex()), &packed[..packed.len() / 2]).expect("partial");
    assert_eq!(pull(&to, &name).await.expect("resumed").image, id);
    assert!(!to.content().partial_path(&blob.hex()).exists());
    // The partial file is damaged: the first pull notices and throws it away, the next one succeeds.
    let (_c, to) = store();
    let mut damaged = packed[..packed.len() / 2].to_vec();
    damaged[1000] ^= 1;
    std::fs::write(to.content().partial_path(&blob.hex()), &damaged).expect("partial");
    pull(&to, &name).await.expect_err("damaged");
    assert!(to.catalog_is_empty_of_layers());
    assert_eq!(pull(&to, &name).await.expect("again").image, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_dropped_leaves_nothing_half_done() {
    let server = Server::start().await;
    let name = server.reference("app:1");
    let (_a, from) = store();
    let id = image(&from, vec![busybox_tar(20_000_000)], &name).await;
    push(&from, &name).await;
    let (_b, to) = store();
    let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let task = {
        let (to, name) = (Arc::clone(&to), name.clone());
        tokio::spawn(async move { to.pull(&name, &PullOptions::default(), Arc::new(events)).await.map(drop) })
    };
    // Wait until bytes flow, then give it up.
    while let Some(event) = seen.recv().await {
        if matches!(event, Progress::Layer { current, .. } if current > 0) {
            break;
        }
    }
    task.abort();
    let _ = task.await;
    assert!(to.list().is_empty());
    assert_eq!(pull(&to, &name).await.expect("pull").image, id);
    assert_eq!(read_in(&to, &id, "data/filler").len(), 20_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_their_cause() {
    let server = Server::start().await;
    let (_a, from) = store();
    let name = server.reference("app:1");
    image(&from, vec![busybox_tar(10)], &name).await;
    push(&from, &name).await;
    let (_b, to) = store();
    let missing = pull(&to, &server.reference("app:none")).await.expect_err("no such tag");
    assert!(missing.chain().contains("app:none not found: manifest unknown"), "{}", missing.chain());
    let options = PullOptions {
        platform: Some(Platform::parse("linux/s390x").expect("platform")),
        ..Default::default()
    };
    let wrong = to.pull(&name, &options, Arc::new(())).await.expect_err("other platform");
    assert!(wrong.chain().contains("linux/s390x"), "{}", wrong.chain());
    assert!(to.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_repository_gets_its_blobs_by_mount() {
    let server = Server::start().await;
    let (_a, from) = store();
    let (first, second) = (server.reference("one/app:1"), server.reference("two/app:1"));
    let id = image(&from, vec![busybox_tar(1_000)], &first).await;
    push(&from, &first).await;
    from.tag(&id.to_string(), &second).expect("tag");
    let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
    from.push(&second, None, &Default::default(), Arc::new(events)).await.expect("push");
    let mut mounted = false;
    while let Ok(event) = seen.try_recv() {
        mounted |=
            matches!(event, Progress::Layer { status, .. } if status == gantry_images::LayerStatus::Mounted);
    }
    assert!(mounted);
    let (_b, to) = store();
    assert_eq!(pull(&to, &second).await.expect("pull").image, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_of_a_repository_are_pulled() {
    let server = Server::start().await;
    let (_a, from) = store();
    for tag in ["one", "three", "two"] {
        let name = server.reference(&format!("team/app:{tag}"));
        image(&from, vec![busybox_tar(100)], &name).await;
        push(&from, &name).await;
    }
    let (_b, to) = store();
    let repository = server.reference("team/app");
    let options = PullOptions::default();
    assert_eq!(to.pull_all(&repository, &options, Arc::new(())).await.expect("pull").len(), 3);
    let tags: Vec<String> = to.list().into_iter().flat_map(|image| image.repo_tags).collect();
    assert_eq!(tags.len(), 3, "{tags:?}");
    let none = to.pull_all(&server.reference("none"), &options, Arc::new(())).await.expect_err("none");
    assert!(none.to_string().contains("none"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn collection_goes_on_beside_pushes_and_takes_only_what_is_unused() {
    let server = Server::start().await;
    let (_a, from) = store();
    let registry = Arc::clone(&server.registry);
    let collector = tokio::task::spawn_blocking(move || {
        let mut runs = 0;
        // Ends when the pushes are done and their marker appears.
        while registry.find_marker().is_none() {
            registry.collect(Duration::from_secs(5)).expect("collect");
            runs += 1;
        }
        runs
    });
    for number in 0..8 {
        let name = server.reference(&format!("app:{number}"));
        image(&from, vec![busybox_tar(100_000 + number)], &name).await;
        push(&from, &name).await;
    }
    let marker = server.reference("marker:1");
    image(&from, vec![busybox_tar(1)], &marker).await;
    push(&from, &marker).await;
    assert!(collector.await.expect("collector") > 0);
    let (_b, to) = store();
    for number in 0..8 {
        pull(&to, &server.reference(&format!("app:{number}"))).await.expect("all pushed images are whole");
    }
    // A blob that nothing refers to goes once it is old enough.
    let loose = Digest::of(b"loose");
    server.put_blob("app", b"loose").await;
    let none = server.registry.collect(Duration::from_secs(3600)).expect("collect");
    assert_eq!(none.blobs, 0);
    let done = server.registry.collect(Duration::ZERO).expect("collect");
    assert_eq!((done.blobs, done.bytes), (1, 5));
    assert!(!server.has_blob("app", &loose).await);
    for number in 0..8 {
        let (_c, fresh) = store();
        pull(&fresh, &server.reference(&format!("app:{number}"))).await.expect("pull after the collection");
    }
}

/// How long what is unused is spared: longer than a push takes.
const SPARED: Duration = Duration::from_secs(5);
/// How much is to be collected while all goes on.
const ENOUGH: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn pushes_pulls_deletions_and_collections_at_once_lose_nothing() {
    let server = Arc::new(Server::start().await);
    let collected = Arc::new(AtomicU64::new(0));
    let (registry, count) = (Arc::clone(&server.registry), Arc::clone(&collected));
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    let collector = tokio::task::spawn_blocking(move || {
        while count.load(Ordering::SeqCst) < ENOUGH {
            assert!(std::time::Instant::now() < deadline, "nothing is collected");
            count.fetch_add(registry.collect(SPARED).expect("collect").blobs, Ordering::SeqCst);
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..3usize {
        let (server, collected) = (Arc::clone(&server), Arc::clone(&collected));
        tasks.spawn(async move {
            let mut round = 0;
            while collected.load(Ordering::SeqCst) < ENOUGH && std::time::Instant::now() < deadline {
                round += 1;
                let name = server.reference(&format!("app{task}:{round}"));
                let (_a, from) = store();
                // The lower layer is everybody's, the upper one comes back after a while.
                image(&from, vec![busybox_tar(1000), busybox_tar(2000 + task * 100 + round % 7)], &name)
                    .await;
                let pushed = push(&from, &name).await;
                let (_b, to) = store();
                pull(&to, &name).await.expect("what was pushed is whole");
                let path = format!("/v2/app{task}/manifests/{}", pushed.digest);
                assert_eq!(server.send("DELETE", &path, &[], b"").await.status, 202);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("task");
    }
    collector.await.expect("collector");
    let registry = Arc::clone(&server.registry);
    let rest = tokio::task::spawn_blocking(move || registry.collect(Duration::ZERO)).await.expect("task");
    assert!(rest.expect("collect").blobs > 0);
    assert_eq!(server.blobs_on_disk(), 0, "all space is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn removals_beside_pulls_never_take_layers_away_from_them() {
    let server = Server::start().await;
    let (_a, from) = store();
    let names = [server.reference("one:1"), server.reference("two:1")];
    // Both share their lower layer.
    for (number, name) in names.iter().enumerate() {
        image(&from, vec![busybox_tar(1_000), busybox_tar(2_000 + number)], name).await;
        push(&from, name).await;
    }
    let (_b, to) = store();
    let mut tasks = tokio::task::JoinSet::new();
    for name in names.clone() {
        let to = Arc::clone(&to);
        tasks.spawn(async move {
            for round in 0..25u8 {
                let pulled = pull(&to, &name).await.expect("pull");
                let (store, shown) = (Arc::clone(&to), name.familiar());
                let work = move || {
                    // A container starts on it, if nobody else was faster to remove the image.
                    let mut bytes = [round; 32];
                    bytes[1..9].copy_from_slice(&Digest::of(shown.as_bytes()).as_bytes()[..8]);
                    let id = gantry_model::id::ContainerId::from_random(bytes);
                    let rootfs = store.prepare_rootfs(id.as_str(), &pulled.image).expect("rootfs");
                    assert_eq!(rootfs.lower.len(), 2);
                    store.remove(&shown, true, &|_| Vec::new()).expect("remove");
                    for lower in &rootfs.lower {
                        assert!(lower.join("bin/busybox").exists(), "in use by the container");
                    }
                    store.remove_rootfs(id.as_str()).expect("remove");
                };
                tokio::task::spawn_blocking(work).await.expect("work");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("task");
    }
    let store = Arc::clone(&to);
    tokio::task::spawn_blocking(move || store.collect()).await.expect("task").expect("collect");
    assert!(to.list().is_empty() && to.catalog_is_empty_of_layers());
    assert!(to.content().list().expect("blobs").is_empty());
}

trait Marker {
    fn find_marker(&self) -> Option<()>;
}

impl Marker for gantry_registry::Registry {
    fn find_marker(&self) -> Option<()> {
        let name = gantry_registry::repository::Name::parse("marker").expect("name");
        let tag = gantry_registry::manifest::Selector::Tag("1".to_owned());
        self.find_manifest(&name, &tag).ok().map(drop)
    }
}

trait Layers {
    fn catalog_is_empty_of_layers(&self) -> bool;
}

impl Layers for gantry_images::Store {
    fn catalog_is_empty_of_layers(&self) -> bool {
        self.layers_size() == 0 && std::fs::read_dir(self.dir().join("layers")).expect("layers").count() == 0
    }
}
