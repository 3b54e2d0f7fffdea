// What the page does: plays a session's URL by one of the players, and notes what comes of it. Runs in the browser.
const video = document.querySelector("video");
/** Errors of either player, fatal or not, and of the element. */
const faults = [];
/** Of each picture that was shown: its time in the media, and its grey, if that is looked at. */
const shown = [];
/** The player. */
let player;

video.addEventListener("error", () => faults.push(`video: ${video.error.code} ${video.error.message}`));

/** Begins to play, with whatever a player does if it is told nothing. Does not wait for it: that may be for ever. */
function play(name, url) {
  begin(name, url).catch((error) => faults.push(`play: ${error}`));
}

async function begin(name, url) {
  if (name === "hls.js") {
    player = new Hls();
    player.on(Hls.Events.ERROR, (_, { type, details, fatal, error }) => faults.push(`hls.js: ${type} ${details} ${fatal} ${error}`));
    player.attachMedia(video);
    player.loadSource(url);
  } else {
    player = new shaka.Player();
    player.addEventListener("error", ({ detail }) => faults.push(`Shaka: ${detail.code} ${detail.message}`));
    await player.attach(video);
    await player.load(url);
  }
  video.requestVideoFrameCallback(note);
  await video.play();
}

/** Wherever it is now; a black picture before the first one. */
function grey() {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [1, 1];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data[0];
}

function note(_, { mediaTime }) {
  shown.push({ mediaTime, grey: grey() });
  video.requestVideoFrameCallback(note);
}

/** How things are. */
function state() {
  const { totalVideoFrames, droppedVideoFrames } = video.getVideoPlaybackQuality();
  const audioBytes = video.webkitAudioDecodedByteCount;
  const ranges = Array.from({ length: video.buffered.length }, (_, index) => [video.buffered.start(index), video.buffered.end(index)]);
  const { currentTime, duration, ended, paused, readyState } = video;
  return { currentTime, duration, ended, paused, readyState, totalVideoFrames, droppedVideoFrames, audioBytes, ranges, faults };
}

/** Milliseconds since 1970 of what is shown, as the player says; NaN: it does not know. */
function playingDate() {
  return Number((player instanceof shaka.Player ? player.getPlayheadTimeAsDate() : player.playingDate) ?? NaN);
}

/** Seconds between what is shown and the end of what is listed. */
function behind() {
  return (player instanceof shaka.Player ? player.seekRange().end : player.latestLevelDetails.edge) - video.currentTime;
}
