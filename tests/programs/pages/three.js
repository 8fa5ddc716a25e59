import * as THREE from "three/webgpu";
import { GLTFGaussianSplatLoaderExtension } from "three/addons/loaders/GLTFGaussianSplatLoaderExtension.js";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { GaussianSplatPLYLoader } from "three/addons/loaders/GaussianSplatPLYLoader.js";
import { SPLATLoader } from "three/addons/loaders/SPLATLoader.js";
import { SPZLoader } from "three/addons/loaders/SPZLoader.js";
import { GaussianSplat } from "three/addons/objects/GaussianSplat.js";
import { aim, mesh } from "./meshes.js";

const LOADERS = { ".ply": GaussianSplatPLYLoader, ".splat": SPLATLoader, ".spz": SPZLoader };

async function splats(url, suffix) {
  if (suffix in LOADERS) return new GaussianSplat(await new LOADERS[suffix]().loadAsync(url));
  const loader = new GLTFLoader().register(parser => new GLTFGaussianSplatLoaderExtension(parser));
  return (await loader.loadAsync(url)).scene;
}

export async function open(url, suffix, place) {
  const renderer = new THREE.WebGPURenderer({ forceWebGL: true, antialias: true });
  renderer.setSize(256, 256);
  place.append(renderer.domElement);
  const scene = new THREE.Scene();
  scene.background = new THREE.Color("white");
  const camera = new THREE.PerspectiveCamera(35, 1, 0.1, 100);
  if ([".glb", ".obj"].includes(suffix)) {
    scene.add(await mesh(url), new THREE.AmbientLight("white", Math.PI));  // a light for .obj
  } else {
    renderer.outputColorSpace = THREE.LinearSRGBColorSpace;  // colours of Gaussians are sRGB already
    scene.add(await splats(url, suffix));
  }
  await renderer.init();
  return view => { aim(camera, view); renderer.render(scene, camera); };
}
