import * as THREE from "three";
import * as GaussianSplats3D from "/node_modules/@mkkellogg/gaussian-splats-3d/build/gaussian-splats-3d.module.js";

export async function open(url, suffix, place) {
  const renderer = new THREE.WebGLRenderer();
  renderer.setSize(256, 256);
  renderer.setClearColor("white");
  place.append(renderer.domElement);
  const camera = new THREE.PerspectiveCamera(35, 1, 0.1, 100);
  const viewer = new GaussianSplats3D.Viewer({
    selfDrivenMode: false, renderer, camera, useBuiltInControls: false, sharedMemoryForWorkers: false,
    gpuAcceleratedSort: false, sphericalHarmonicsDegree: 2, rootElement: place,
    sceneRevealMode: GaussianSplats3D.SceneRevealMode.Instant,
  });
  await viewer.addSplatScene(url, { showLoadingUI: false, splatAlphaRemovalThreshold: 1 });
  return async view => {
    camera.position.set(...view.position);
    camera.lookAt(...view.target);
    camera.updateMatrixWorld();
    viewer.update();
    viewer.render();
  };
}
