module.exports = {
  preset: '@react-native/jest-preset',
  // Packages of ES modules, which Metro transforms as well.
  transformIgnorePatterns: ['node_modules/(?!((jest-)?react-native|@react-native(-community)?|@coralmux|@noble)/)'],
  setupFiles: ['./test/engine.js'],
};
